package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// root is an open ciphertext directory. Its calls reach the directory that was
// opened, whatever its path leads to now.
type root struct {
	store *backing.Store
	dir   *os.File
	path  string // for messages
}

// openRoot opens the ciphertext directory. A missing one is fs.ErrNotExist.
func openRoot(store *backing.Store, dir string) (*root, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s: %w: %w", path, ErrNotVolume, err)
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if store == nil {
		store = new(backing.Store)
	}
	return &root{store: store, dir: os.NewFile(uintptr(fd), path), path: path}, nil
}

func (r *root) close() error { return r.dir.Close() }

func (r *root) fd() int { return int(r.dir.Fd()) }

func (r *root) failed(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(r.path, name), Err: err}
}

// names calls f with the name of each entry but "." and "..", until f fails.
func (r *root) names(f func(name string) error) error {
	again, err := r.reopen()
	if err != nil {
		return err
	}
	list, err := again.Readdirnames(-1)
	if err = errors.Join(err, again.Close()); err != nil {
		return err
	}
	for _, name := range list {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// reopen opens the directory anew: a description of its own, with its own
// position and its own lock.
func (r *root) reopen() (*os.File, error) {
	fd, err := r.store.Open(r.fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, r.failed("open", "", err)
	}
	return os.NewFile(uintptr(fd), r.path), nil
}
