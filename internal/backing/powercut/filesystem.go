package powercut

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileSystem is what a Script works on. Paths are relative to its root, which is ".".
type FileSystem interface {
	// Open opens a file for writing, which is made if create is set and must not exist then.
	Open(path string, create bool) (File, error)
	Mkdir(path string) error
	Symlink(target, path string) error
	Link(from, to string) error
	Rename(from, to string, flags uint) error
	Unlink(path string) error
	Rmdir(path string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(path string) error
}

// File is an open file.
type File interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// Directory is the FileSystem below a directory, as the kernel shows it.
type Directory string

var _ FileSystem = Directory("")

func (d Directory) at(path string) string { return filepath.Join(string(d), path) }

// Open is a part of FileSystem.
func (d Directory) Open(path string, create bool) (File, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	return os.OpenFile(d.at(path), flags, 0o644)
}

// Mkdir is a part of FileSystem.
func (d Directory) Mkdir(path string) error { return os.Mkdir(d.at(path), 0o755) }

// Symlink is a part of FileSystem.
func (d Directory) Symlink(target, path string) error { return os.Symlink(target, d.at(path)) }

// Link is a part of FileSystem.
func (d Directory) Link(from, to string) error { return os.Link(d.at(from), d.at(to)) }

// Rename is a part of FileSystem.
func (d Directory) Rename(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, d.at(from), unix.AT_FDCWD, d.at(to), flags)
}

// Unlink is a part of FileSystem.
func (d Directory) Unlink(path string) error { return unix.Unlink(d.at(path)) }

// Rmdir is a part of FileSystem.
func (d Directory) Rmdir(path string) error { return unix.Rmdir(d.at(path)) }

// SyncDir is a part of FileSystem.
func (d Directory) SyncDir(path string) (err error) {
	f, err := os.Open(d.at(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}
