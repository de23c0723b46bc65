package volume

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A header has two writers: the mount, which seals and unseals, and a rewrap, which may run in another process beside it.
// Both read the newest slot and write the other one, and neither may do that between the other's read and write. So whoever
// writes a header that is there holds a lock on its bytes meanwhile: an open file description lock (fcntl(2)), which
// excludes other processes and other descriptions of this one alike. A mount also holds it while it cuts a file to nothing,
// or a rewrap would write a slot into an empty file. An empty file has no header, and only the mount writes its first.
//
// LOCK ORDER: header.mu before this. It is held for a few system calls and never while the key service is asked.

// headerLockWait bounds how long a writer waits. The other one holds the lock for microseconds; it takes this long only
// if that one was stopped, or if somebody else has locked the file, which must not block a mount for ever.
const headerLockWait = 10 * time.Second

// errHeaderLocked is what a writer gets that waited in vain.
var errHeaderLocked = fmt.Errorf("another program has locked the header: %w", unix.EBUSY)

// errNoHeaderLocks: the file system has no such locks, or its lock server is away.
var errNoHeaderLocks = errors.New("the file system does not support locks on files")

// lockHeader locks the first size bytes of the file behind fd, which must be open for writing.
func lockHeader(fd int, size int64) error {
	deadline := time.Now().Add(headerLockWait)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := setHeaderLock(fd, size, unix.F_WRLCK)
		switch err {
		case nil:
			return nil
		case unix.EAGAIN, unix.EACCES:
		case unix.EINVAL, unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP:
			return fmt.Errorf("%w: %w", errNoHeaderLocks, err)
		default:
			return err
		}
		if time.Now().After(deadline) {
			return errHeaderLocked
		}
		time.Sleep(pause)
	}
}

// unlockHeader ends what lockHeader began. Closing the last descriptor of the description does so, too.
func unlockHeader(fd int, size int64) error { return setHeaderLock(fd, size, unix.F_UNLCK) }

func setHeaderLock(fd int, size int64, kind int16) error {
	lock := unix.Flock_t{Type: kind, Len: size}
	for {
		if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != unix.EINTR {
			return err
		}
	}
}

// lockHeader locks the header of an open file. Where that is impossible no rewrap can run beside a mount either, so the
// mount goes on without.
func (f *File) lockHeader() error {
	err := lockHeader(f.FD(), f.v.layout.HeaderSize())
	if errors.Is(err, errNoHeaderLocks) {
		return nil
	}
	return err
}

func (f *File) unlockHeader() {
	err := unlockHeader(f.FD(), f.v.layout.HeaderSize())
	if err != nil && err != unix.EINVAL && err != unix.ENOLCK && err != unix.ENOSYS && err != unix.EOPNOTSUPP {
		f.v.log.Error("cannot unlock a header", "file_id", f.key.id, "error", err)
	}
}
