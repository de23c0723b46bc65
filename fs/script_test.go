package fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// script is a series of system calls in one directory. It writes down what an application can see of each: the errno, the
// result, the attributes. The same script run on a plain directory writes down what is expected.
type script struct {
	dir string

	mu  sync.Mutex
	out []string // guarded by mu
}

func (s *script) p(name string) string { return s.dir + "/" + name }

// note writes down a line.
func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\\n"))
}

// result writes down a call and how it ended; it reports whether it succeeded.
func (s *script) result(err error, format string, args ...any) bool {
	s.note("%s = %s", fmt.Sprintf(format, args...), errName(err))
	return err == nil
}

func errName(err error) string {
	var errno unix.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.Is(err, io.EOF):
		return "EOF"
	}
	return err.Error()
}

// again repeats a call that a signal of the Go runtime interrupts.
func again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func (s *script) open(name string, flags int, mode uint32) (fd int) {
	err := again(func() (err error) { fd, err = unix.Open(s.p(name), flags|unix.O_CLOEXEC, mode); return err })
	s.result(err, "open %q %#x %o", shorten(name), flags, mode)
	return fd
}

// file makes a file with content, closed, without a word unless that fails.
func (s *script) file(name string, content []byte) {
	s.quiet(os.WriteFile(s.p(name), content, 0o644), "write "+shorten(name))
}

func (s *script) quiet(err error, what string) {
	if err != nil {
		s.result(err, "%s", what)
	}
}

func (s *script) close(fd int) {
	if err := unix.Close(fd); err != nil {
		s.result(err, "close")
	}
}

func (s *script) write(fd int, data []byte) {
	n, err := unix.Write(fd, data)
	s.result(err, "write %d -> %d", len(data), n)
}

func (s *script) pwrite(fd int, data []byte, off int64) {
	n, err := unix.Pwrite(fd, data, off)
	s.result(err, "pwrite %d at %d -> %d", len(data), off, n)
}

func (s *script) pread(fd, n int, off int64) {
	buf := make([]byte, n)
	got, err := unix.Pread(fd, buf, off)
	s.result(err, "pread %d at %d -> %s", n, off, digest(buf[:max(got, 0)]))
}

func (s *script) read(fd, n int) {
	buf := make([]byte, n)
	got, err := unix.Read(fd, buf)
	s.result(err, "read %d -> %s", n, digest(buf[:max(got, 0)]))
}

func (s *script) truncate(name string, size int64) {
	s.result(again(func() error { return unix.Truncate(s.p(name), size) }), "truncate %q %d", name, size)
}

// content writes down what a file holds and how large it says it is.
func (s *script) content(name string) {
	b, err := os.ReadFile(s.p(name))
	s.result(err, "content of %q: %s", shorten(name), digest(b))
	s.size(name)
}

func (s *script) size(name string) {
	var st unix.Stat_t
	err := unix.Lstat(s.p(name), &st)
	s.result(err, "size of %q: %d", shorten(name), st.Size)
}

// stat writes down the attributes that do not depend on the disk.
func (s *script) stat(name string) {
	var st unix.Stat_t
	err := again(func() error { return unix.Lstat(s.p(name), &st) })
	if s.result(err, "stat %q", shorten(name)) {
		s.attributes(&st)
	}
}

func (s *script) fstat(fd int) {
	var st unix.Stat_t
	if s.result(unix.Fstat(fd, &st), "fstat") {
		s.attributes(&st)
	}
}

func (s *script) attributes(st *unix.Stat_t) {
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0 // the disk's business
	}
	s.note("  mode %o nlink %d owner %d:%d size %d rdev %#x", st.Mode, st.Nlink, st.Uid, st.Gid, size, st.Rdev)
}

// times writes down the times of a file, which the script must have set.
func (s *script) times(name string) {
	var st unix.Stat_t
	err := unix.Lstat(s.p(name), &st)
	s.result(err, "times of %q: atime %d.%09d mtime %d.%09d", name, st.Atim.Sec, st.Atim.Nsec, st.Mtim.Sec, st.Mtim.Nsec)
}

// mtime is times without the access time, which opening a file moves on a mount: its header is read.
func (s *script) mtime(name string) {
	var st unix.Stat_t
	err := unix.Lstat(s.p(name), &st)
	s.result(err, "mtime of %q: %d.%09d", name, st.Mtim.Sec, st.Mtim.Nsec)
}

// list writes down the names in a directory.
func (s *script) list(name string) {
	entries, err := os.ReadDir(s.p(name))
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%s %q", e.Type(), shorten(e.Name())))
	}
	slices.Sort(names)
	s.result(err, "list %q: %d %s", name, len(names), strings.Join(names, ", "))
}

func (s *script) link(old, name string) {
	s.result(again(func() error { return unix.Link(s.p(old), s.p(name)) }), "link %q %q", shorten(old), shorten(name))
}

func (s *script) symlink(target, name string) {
	s.result(again(func() error { return unix.Symlink(target, s.p(name)) }), "symlink %s %q", digest([]byte(target)), shorten(name))
}

func (s *script) readlink(name string) {
	target, err := os.Readlink(s.p(name))
	s.result(err, "readlink %q -> %s", name, digest([]byte(target)))
}

func (s *script) rename(old, name string, flags uint) {
	err := again(func() error { return unix.Renameat2(unix.AT_FDCWD, s.p(old), unix.AT_FDCWD, s.p(name), flags) })
	s.result(err, "rename %q %q %d", shorten(old), shorten(name), flags)
}

func (s *script) unlink(name string) {
	s.result(again(func() error { return unix.Unlink(s.p(name)) }), "unlink %q", shorten(name))
}

func (s *script) rmdir(name string) {
	s.result(again(func() error { return unix.Rmdir(s.p(name)) }), "rmdir %q", shorten(name))
}

func (s *script) mkdir(name string, mode uint32) {
	s.result(again(func() error { return unix.Mkdir(s.p(name), mode) }), "mkdir %q %o", shorten(name), mode)
}

func (s *script) mknod(name string, mode uint32, dev uint64) {
	s.result(again(func() error { return unix.Mknod(s.p(name), mode, int(dev)) }), "mknod %q %o %#x", name, mode, dev)
}

func (s *script) chmod(name string, mode uint32) {
	s.result(again(func() error { return unix.Chmod(s.p(name), mode) }), "chmod %q %o", name, mode)
}

func (s *script) chown(name string, uid, gid int) {
	s.result(again(func() error { return unix.Lchown(s.p(name), uid, gid) }), "chown %q %d:%d", name, uid, gid)
}

func (s *script) access(name string, mask uint32) {
	err := unix.Faccessat2(unix.AT_FDCWD, s.p(name), mask, unix.AT_EACCESS)
	s.result(err, "access %q %d", name, mask)
}

// as runs f with the credentials of another user and no other groups than those given, on a thread of its own that ends
// with it.
func (s *script) as(uid, gid int, groups []uint32, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so that the thread ends with its credentials
		s.note("as %d:%d %v", uid, gid, groups)
		var list unsafe.Pointer
		if len(groups) > 0 {
			list = unsafe.Pointer(&groups[0])
		}
		_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0)
		_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if e1 != 0 || e2 != 0 || e3 != 0 {
			s.note("cannot become %d:%d: %v %v %v", uid, gid, e1, e2, e3)
			return
		}
		f()
	}()
	<-done
	s.note("as root again")
}

// digest describes bytes: short ones as they are.
func digest(b []byte) string {
	if len(b) <= 48 {
		return fmt.Sprintf("%q", b)
	}
	zeros := 0
	for _, c := range b {
		if c == 0 {
			zeros++
		}
	}
	return fmt.Sprintf("%d bytes, %d of them zero, sha256 %x", len(b), zeros, sha256.Sum256(b))
}

func shorten(name string) string {
	if len(name) <= 64 {
		return name
	}
	return fmt.Sprintf("%s…(%d bytes, %x)", name[:8], len(name), sha256.Sum256([]byte(name)))
}

// pattern returns bytes that differ everywhere and are never zero for long.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7})
	_, _ = r.Read(b)
	return b
}

// scenario is a script with a name. after, if there is one, runs once everything is cold: on a mount after it was mounted again.
type scenario struct {
	name       string
	run, after func(s *script)
}

// play runs the scenarios one after the other, each in a directory of its own, and prints what they write down.
func play(w io.Writer, dir string, scenarios []scenario, after bool) error {
	for _, sc := range scenarios {
		f := sc.run
		s := &script{dir: filepath.Join(dir, sc.name)}
		if after {
			f = sc.after
		} else if err := os.MkdirAll(s.dir, 0o777); err != nil {
			return err
		}
		if f == nil {
			continue
		}
		unix.Umask(0o022)
		s.guard(f)
		if err := s.print(w, sc.name); err != nil {
			return err
		}
	}
	return nil
}

// guard writes down a panic, so that the other scenarios run.
func (s *script) guard(f func(s *script)) {
	defer func() {
		if p := recover(); p != nil {
			s.note("panic: %v", p)
		}
	}()
	f(s)
}

func (s *script) print(w io.Writer, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	for _, line := range s.out {
		fmt.Fprintf(&b, "%s\t%s\n", name, line)
	}
	_, err := w.Write(b.Bytes())
	return err
}
