// Package backing is the one door between envfs and the ciphertext directory's file system: thin system calls on
// descriptors and on (directory descriptor, name) pairs. No call takes a path with more than one component, so nothing in
// the ciphertext directory can lead a call elsewhere, and none follows a symbolic link.
//
// It stands below volume and fs, knows nothing of encryption, and exists for two reasons: every call restarts after
// EINTR in one place, and a Hook sees each call before it happens. Tests use the Hook to record the exact order of
// writes and syncs and to inject faults; in production it is nil and costs one comparison.
package backing

import (
	"errors"
	"io"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Op names one kind of call, for a Hook.
type Op string

// The calls that a Hook may see. Calls that only look at attributes are not worth a fault of their own and share OpStat.
const (
	OpOpen      Op = "open"
	OpClose     Op = "close"
	OpRead      Op = "read"
	OpWrite     Op = "write"
	OpTruncate  Op = "truncate"
	OpFallocate Op = "fallocate"
	OpSync      Op = "sync"
	OpSyncFS    Op = "syncfs"
	OpStat      Op = "stat"
	OpAccess    Op = "access" // asks what this process may do
	OpMkdir     Op = "mkdir"
	OpMknod     Op = "mknod"
	OpSymlink   Op = "symlink"
	OpReadlink  Op = "readlink"
	OpLink      Op = "link"
	OpUnlink    Op = "unlink"
	OpRename    Op = "rename"
	OpSetattr   Op = "setattr"
	OpXattr     Op = "xattr"
	OpGetxattr  Op = "getxattr" // lists them, too
	OpReaddir   Op = "readdir"
)

// Call describes a call that is about to happen. FD is the file, or the directory that Name is in; FD2 and Name2 are the
// target of a rename or link. Data is only lent: a Hook that keeps it must copy it. For OpSync, Flags is DataOnly or 0.
type Call struct {
	Op     Op
	FD     int
	Name   string
	FD2    int
	Name2  string
	Offset int64
	Size   int64
	Flags  int
	Data   []byte
	// What there is to see after the call, for an Observer.
	Opened int          // OpOpen: the new descriptor
	Stat   *unix.Stat_t // OpStat, unless it is a statx(2): the answer, which it may change
}

// DataOnly is the flag of an OpSync that is an fdatasync(2).
const DataOnly = 1

// Hook sees each call before it is made. An error is returned to the caller in place of making the call; an OpClose is made all the
// same, because Linux has released the descriptor even when it reports an error.
// For OpRead and OpWrite it may lower c.Size: the disk then moves no more than that at first, which ends a write (there is
// no room for the rest) and lets a read go on behind it.
type Hook interface {
	Before(c *Call) error
}

// Observer is a Hook that is also told how each call has ended, but for those that read content, links or attributes by statx(2),
// that close, or that ask what they may.
// After follows each such Before that returned no error, in the same goroutine. After OpReaddir, Data is what was read.
type Observer interface {
	Hook
	After(c *Call, err error)
}

// Store makes the calls. The zero Store is ready for use. It is safe for concurrent use.
type Store struct {
	Hook Hook

	noXattrAt atomic.Bool // the kernel has no getxattrat(2)
}

func (s *Store) before(c *Call) error {
	if s.Hook == nil {
		return nil
	}
	return s.Hook.Before(c)
}

// after passes err on.
func (s *Store) after(c *Call, err error) error {
	if o, ok := s.Hook.(Observer); ok {
		o.After(c, err)
	}
	return err
}

// retry repeats f while it is interrupted by a signal.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Open opens name in the directory dir. O_NOFOLLOW and O_CLOEXEC are always set; name "." opens dir itself anew.
func (s *Store) Open(dir int, name string, flags int, mode uint32) (int, error) {
	return s.open(&Call{Op: OpOpen, FD: dir, Name: name, Flags: flags}, func() (int, error) {
		return unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	})
}

func (s *Store) open(c *Call, f func() (int, error)) (fd int, err error) {
	if err := s.before(c); err != nil {
		return -1, err
	}
	err = retry(func() error { fd, err = f(); return err })
	c.Opened = fd
	return fd, s.after(c, err)
}

// Reopen opens the file behind fd once more, with other flags. It works for a file that has no name any more.
func (s *Store) Reopen(fd int, flags int) (int, error) {
	return s.open(&Call{Op: OpOpen, FD: fd, Flags: flags}, func() (int, error) {
		return unix.Open(procPath(fd), flags|unix.O_CLOEXEC, 0)
	})
}

// Dup returns a second descriptor for the same open file, which lasts when fd is closed.
func (s *Store) Dup(fd int) (int, error) {
	if err := s.before(&Call{Op: OpOpen, FD: fd}); err != nil {
		return -1, err
	}
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
}

// Close closes fd. Linux has released the descriptor even when it reports an error, so it is never repeated.
func (s *Store) Close(fd int) error {
	var struck error
	if s.Hook != nil { // looked at here, so that nothing is allocated for nobody
		struck = s.before(&Call{Op: OpClose, FD: fd})
	}
	err := unix.Close(fd)
	if struck != nil {
		return struck
	}
	if err == unix.EINTR {
		return nil
	}
	return err
}

// ReadAt fills p from offset off and returns fewer bytes only at the end of the file.
func (s *Store) ReadAt(fd int, p []byte, off int64) (int, error) {
	done, first := 0, len(p)
	if s.Hook != nil { // looked at here, so that nothing is allocated for nobody
		c := Call{Op: OpRead, FD: fd, Offset: off, Size: int64(len(p))}
		if err := s.before(&c); err != nil {
			return 0, err
		}
		first = int(c.Size)
	}
	for done < len(p) {
		to := len(p)
		if done < first {
			to = first
		}
		n, err := unix.Pread(fd, p[done:to], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// WriteAt writes all of p at offset off, or returns how much of it was written and why no more.
func (s *Store) WriteAt(fd int, p []byte, off int64) (int, error) {
	if s.Hook == nil { // looked at here, so that nothing is allocated for nobody
		return writeAt(fd, p, off)
	}
	c := Call{Op: OpWrite, FD: fd, Offset: off, Size: int64(len(p)), Data: p}
	if err := s.before(&c); err != nil {
		return 0, err
	}
	n, err := writeAt(fd, p[:c.Size], off)
	if err == nil && n < len(p) {
		err = unix.ENOSPC
	}
	c.Size = int64(n)
	return n, s.after(&c, err)
}

func writeAt(fd int, p []byte, off int64) (done int, err error) {
	for done < len(p) {
		n, err := unix.Pwrite(fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
		done += n
	}
	return done, nil
}

// Truncate sets the size of the file in bytes.
func (s *Store) Truncate(fd int, size int64) error {
	c := &Call{Op: OpTruncate, FD: fd, Size: size}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Ftruncate(fd, size) }))
}

// Fallocate is fallocate(2): mode, offset and length in bytes.
func (s *Store) Fallocate(fd int, mode uint32, off, length int64) error {
	c := &Call{Op: OpFallocate, FD: fd, Offset: off, Size: length, Flags: int(mode)}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Fallocate(fd, mode, off, length) }))
}

// Sync makes data and attributes of fd durable; with dataOnly, what is needed to read the data back.
func (s *Store) Sync(fd int, dataOnly bool) error {
	flags := 0
	if dataOnly {
		flags = DataOnly
	}
	c := &Call{Op: OpSync, FD: fd, Flags: flags}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error {
		if dataOnly {
			return unix.Fdatasync(fd)
		}
		return unix.Fsync(fd)
	}))
}

// SyncFS makes all of the file system that holds fd durable.
func (s *Store) SyncFS(fd int) error {
	c := &Call{Op: OpSyncFS, FD: fd}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Syncfs(fd) }))
}

// Stat returns the attributes of the file behind fd.
func (s *Store) Stat(fd int, st *unix.Stat_t) error {
	if s.Hook == nil { // looked at here, so that st does not escape to the heap for nobody
		return retry(func() error { return unix.Fstat(fd, st) })
	}
	return s.observedStat(&Call{Op: OpStat, FD: fd}, st, func(st *unix.Stat_t) error { return unix.Fstat(fd, st) })
}

// StatAt returns the attributes of name in dir.
func (s *Store) StatAt(dir int, name string, st *unix.Stat_t) error {
	if s.Hook == nil {
		return retry(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW) })
	}
	return s.observedStat(&Call{Op: OpStat, FD: dir, Name: name}, st, func(st *unix.Stat_t) error {
		return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// observedStat is Stat with a Hook, which gets an answer of its own.
func (s *Store) observedStat(c *Call, st *unix.Stat_t, f func(st *unix.Stat_t) error) error {
	if err := s.before(c); err != nil {
		return err
	}
	c.Stat = new(unix.Stat_t)
	err := s.after(c, retry(func() error { return f(c.Stat) }))
	*st = *c.Stat
	return err
}

// StatFS returns the state of the file system that holds fd.
func (s *Store) StatFS(fd int, st *unix.Statfs_t) error {
	return retry(func() error { return unix.Fstatfs(fd, st) })
}

// Seek is lseek(2), for SEEK_DATA and SEEK_HOLE and for directories.
func (s *Store) Seek(fd int, off int64, whence int) (int64, error) {
	return unix.Seek(fd, off, whence)
}

// ReadDir fills buf with raw directory records (getdents64(2)); 0 bytes at the end.
func (s *Store) ReadDir(fd int, buf []byte) (int, error) {
	c := &Call{Op: OpReaddir, FD: fd}
	if err := s.before(c); err != nil {
		return 0, err
	}
	n, err := 0, error(nil)
	err = retry(func() error { n, err = unix.Getdents(fd, buf); return err })
	c.Data = buf[:max(n, 0)]
	return n, s.after(c, err)
}

// procPath is a path that leads to the very file behind fd, whatever its names are now.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// entryPath is a path to name inside the directory fd, for the calls that have no form with a descriptor. It must be used
// with calls that do not follow a final symbolic link.
func entryPath(fd int, name string) string { return procPath(fd) + "/" + name }

// IsNotExist reports that a name, or the directory that held it, is gone.
func IsNotExist(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) }
