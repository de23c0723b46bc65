package powercut

import (
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// stored is the FileSystem of a directory through a backing.Store, as honest as the file system below.
type stored struct {
	store *backing.Store
	dir   string
}

var _ FileSystem = (*stored)(nil)

// within calls f with the directory that p is in, and the last part of p.
func (s *stored) within(p string, f func(dir int, name string) error) error {
	dir, name := path.Split(p)
	fd, err := s.openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd, name)
}

func (s *stored) openDir(p string) (int, error) {
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for part := range strings.SplitSeq(path.Clean(p), "/") {
		if err != nil || part == "." {
			break
		}
		up := fd
		fd, err = s.store.Open(up, part, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(up)
	}
	return fd, err
}

func (s *stored) Open(p string, create bool) (file File, err error) {
	err = s.within(p, func(dir int, name string) error {
		flags := unix.O_RDWR
		if create {
			flags |= unix.O_CREAT | unix.O_EXCL
		}
		fd, err := s.store.Open(dir, name, flags, 0o600)
		file = storedFile{s.store, fd}
		return err
	})
	return file, err
}

func (s *stored) Mkdir(p string) error {
	return s.within(p, func(dir int, name string) error { return s.store.Mkdir(dir, name, 0o700) })
}

func (s *stored) Symlink(target, p string) error {
	return s.within(p, func(dir int, name string) error { return s.store.Symlink(target, dir, name) })
}

func (s *stored) two(a, b string, f func(dir int, name string, toDir int, toName string) error) error {
	return s.within(a, func(dir int, name string) error {
		return s.within(b, func(toDir int, toName string) error { return f(dir, name, toDir, toName) })
	})
}

func (s *stored) Link(from, to string) error { return s.two(from, to, s.store.Link) }

func (s *stored) Rename(from, to string, flags uint) error {
	return s.two(from, to, func(dir int, name string, toDir int, toName string) error {
		return s.store.Rename(dir, name, toDir, toName, flags)
	})
}

func (s *stored) Unlink(p string) error { return s.within(p, s.store.Unlink) }
func (s *stored) Rmdir(p string) error  { return s.within(p, s.store.Rmdir) }

func (s *stored) SyncDir(p string) error {
	fd, err := s.openDir(p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.store.Sync(fd, false)
}

type storedFile struct {
	store *backing.Store
	fd    int
}

func (f storedFile) WriteAt(p []byte, off int64) (int, error) { return f.store.WriteAt(f.fd, p, off) }
func (f storedFile) Truncate(size int64) error                { return f.store.Truncate(f.fd, size) }
func (f storedFile) Sync() error                              { return f.store.Sync(f.fd, true) }
func (f storedFile) Close() error                             { return f.store.Close(f.fd) }

// record makes a directory, a Recorder for it, and the file system that it watches.
func record(t *testing.T) (*Recorder, *stored) {
	t.Helper()
	dir := TempDir(t)
	rec, err := Record(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rec, &stored{&backing.Store{Hook: rec}, dir}
}

// log returns the record, which must be complete.
func logOf(t *testing.T, rec *Recorder) *Log {
	t.Helper()
	l, err := rec.Log()
	if err == nil {
		err = l.CheckComplete()
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}
