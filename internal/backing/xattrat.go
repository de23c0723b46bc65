package backing

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Linux 6.13 reads attributes by directory and name, as openat(2) opens files. Before it the only way that follows no
// symbolic link is a path through /proc, whose look-up costs several times as much as the question itself.

// xattrArgs is struct xattr_args of linux/xattr.h, where a pointer has 64 bits. value is typed as one, so that it stays right
// when the runtime moves a stack.
type xattrArgs struct {
	value *byte
	size  uint32
	flags uint32
}

const pointersFit = unsafe.Sizeof(uintptr(0)) == 8

// getxattrAt is getxattrat(2). ok is false if the kernel has no such call.
func (s *Store) getxattrAt(dir int, name, attr string, dest []byte) (n int, ok bool, err error) {
	if !pointersFit || s.noXattrAt.Load() {
		return 0, false, nil
	}
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, true, err
	}
	what, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, true, err
	}
	args := xattrArgs{size: uint32(len(dest))}
	if len(dest) > 0 {
		args.value = &dest[0]
	}
	for {
		got, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(path)),
			unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(what)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
		switch errno {
		case 0:
			return int(got), true, nil
		case unix.EINTR:
		case unix.ENOSYS:
			s.noXattrAt.Store(true)
			return 0, false, nil
		default:
			return 0, true, errno
		}
	}
}
