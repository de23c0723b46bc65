package fusedev

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is an open /dev/fuse that something is mounted with.
type Device struct {
	mount Mount

	// life is held exclusively while the descriptor is being closed, and shared by notices.
	life   sync.RWMutex
	fd     int  // does not block
	closed bool // guarded by life

	server *Server // set by Serve; guarded by life
}

// Options say how requests are served.
type Options struct {
	// Handle carries out the request in[0] and writes the answer to out[0], of which it returns the length in bytes: 0 if there is
	// none, because none is expected or because the request makes no sense. Neither slice may be used after it has returned.
	Handle func(in, out [][]byte) (n int)
	// MaxRequest bounds what a request carries besides its header and arguments, in bytes, and what an answer does.
	MaxRequest int
	// Ending is called once, when the connection has ended, before what is under way is waited for; nil: nothing.
	Ending func()
	// Restless lets a reader ask for the next request for a moment before it sleeps. Good if there is another processor for the
	// program that would send it.
	Restless bool
	Log      *slog.Logger
}

func newDevice(fd int, m Mount) *Device { return &Device{fd: fd, mount: m} }

// Serve carries out requests until the file system is unmounted, or the connection is aborted. Then it interrupts those under
// way, waits for them, and closes the device.
func (d *Device) Serve(o Options) {
	s := newServer(d.fd, o)
	if s.agree() {
		d.life.Lock()
		d.server = s
		d.life.Unlock()
		s.run()
	}
	d.life.Lock()
	defer d.life.Unlock()
	d.closed = true
	if err := unix.Close(d.fd); err != nil {
		o.Log.Debug("closing /dev/fuse", "error", err)
	}
}

// InvalidateInode makes the kernel write back and drop length bytes of an inode's pages from off on, or all behind it if
// length is 0, and forget its attributes. It may be called while a request is carried out, unless that holds what the requests
// of writing back need. An inode that the kernel does not know is no error.
func (d *Device) InvalidateInode(node uint64, off, length int64) error {
	return d.notify(inodeNotice(node, off, length))
}

// InvalidateEntry makes the kernel look up a name of a directory again, and forget what is behind it if nobody uses that. A name
// that it does not know is no error.
func (d *Device) InvalidateEntry(directory uint64, name string) error {
	return d.notify(entryNotice(directory, name))
}

func (d *Device) notify(notice []byte) error {
	d.life.RLock()
	defer d.life.RUnlock()
	if d.closed {
		return unix.ENODEV
	}
	if d.server != nil {
		d.server.callIfAlone() // pages may have to be written back first, which are requests
	}
	for {
		_, err := unix.Write(d.fd, notice) // not writeOnce: this waits for them
		switch err {
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return nil
		}
		return err
	}
}

// read is one look for a request: EAGAIN if there is none. It does not tell the scheduler of a system call, which would
// have the runtime's supervising thread look after it, since it never waits.
func read(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch {
		case errno == 0 && n == 0:
			return 0, unix.ENODEV // /dev/fuse has no empty requests
		case errno == 0:
			return int(n), nil
		case errno == unix.EINTR || errno == unix.ENOENT: // ENOENT: the caller has given up meanwhile
			continue
		}
		return 0, errno
	}
}

// write answers a request of the kind opcode.
func write(fd int, b []byte, opcode uint32) error {
	for {
		err := writeOnce(fd, b, opcode)
		if err != unix.EINTR {
			return err
		}
	}
}

// writeOnce does not tell the scheduler of a system call that takes a moment only. A large answer takes longer, and that to RELEASE
// may be the last use of a removed file, all of whose pages are then freed.
func writeOnce(fd int, b []byte, opcode uint32) error {
	if len(b) > smallAnswer || opcode == opRelease {
		_, err := unix.Write(fd, b)
		return err
	}
	_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return errno
	}
	return nil
}

// smallAnswer is how much is copied so fast that the scheduler need not know.
const smallAnswer = 64 << 10

// sleep waits for a request, or for the end.
func sleep(fd int) error {
	_, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil, nil)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	return err
}

// giveWay lets others have the processor who are waiting for it.
func giveWay() { syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
