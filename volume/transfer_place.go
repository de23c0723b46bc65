package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// transferPlace is a place to copy to: an entry of an open directory, or that directory itself.
type transferPlace struct {
	dir  int
	name Name // meaningless with into
	into bool // dir is what was named
}

// transferFrom is what to copy: an entry of an open directory.
type transferFrom struct {
	dir  int
	name string
	path string // of dir, for messages
}

// start copies what from names to the given place. A directory becomes what is named, and is merged with it if it is there;
// anything else goes into a directory that is there.
func (t *transfer) start(ctx context.Context, from transferFrom, to transferPlace) error {
	var st unix.Stat_t
	if err := t.from.calls().StatAt(from.dir, from.name, &st); err != nil {
		return entryError("stat", path.Join(from.path, from.name), err)
	}
	if t.volume == keyOf(&st) {
		return entryError("read", path.Join(from.path, from.name), ErrInsideVolume)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && to.into {
		return t.merge(ctx, from, to.dir)
	}
	d := &transferDir{t: t, srcPath: from.path}
	if to.into {
		shown, err := t.from.name(from.dir, from.name)
		if err != nil {
			return fmt.Errorf("%s: %w, so the copy must be given a name", path.Join(from.path, from.name), err)
		}
		if to.name, err = t.to.name(shown); err != nil {
			return err
		}
	}
	var err error
	if d.src, err = t.from.calls().Open(from.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return entryError("open", from.path, err)
	}
	if d.dst, err = t.to.calls().Open(to.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return errors.Join(err, t.from.calls().Close(d.src))
	}
	d.retain()
	defer d.release()
	if err := errors.Join(t.identify(d), t.to.enter(d.dst)); err != nil {
		return err
	}
	return t.named(ctx, d, from.name, to.name)
}

// merge copies what is in a directory into the directory dst.
func (t *transfer) merge(ctx context.Context, from transferFrom, dst int) error {
	d := &transferDir{t: t, srcPath: path.Join(from.path, from.name)}
	var err error
	if d.src, err = t.from.calls().Open(from.dir, from.name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return entryError("open", d.srcPath, err)
	}
	if d.dst, err = t.to.calls().Open(dst, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return errors.Join(err, t.from.calls().Close(d.src))
	}
	return t.directory(ctx, d, true)
}

// placeAt finds the place that a path of the plain file system names. A directory may be named by a symbolic link.
func placeAt(name string) (transferPlace, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		return transferPlace{dir: fd, into: true}, nil
	}
	if strings.HasSuffix(name, "/") || (err != unix.ENOENT && err != unix.ENOTDIR) {
		return transferPlace{}, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	fd, err = unix.Open(filepath.Dir(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return transferPlace{}, &fs.PathError{Op: "open", Path: filepath.Dir(name), Err: err}
	}
	return transferPlace{dir: fd, name: Name{Stored: filepath.Base(name)}}, nil
}

// placeIn finds the place that a plaintext path below the root of a volume names.
func (v *Volume) placeIn(rel string) (_ transferPlace, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	rel = path.Clean(rel)
	if !filepath.IsLocal(rel) {
		return transferPlace{}, ErrBadPath
	}
	dir, err := v.store.Open(v.Root(), ".", flags, 0)
	if err != nil {
		return transferPlace{}, err
	}
	if rel == "." {
		return transferPlace{dir: dir, into: true}, nil
	}
	names := strings.Split(rel, "/")
	for i, plain := range names {
		name, err := v.EncodeName(plain)
		if err != nil {
			return transferPlace{}, errors.Join(entryError("open", rel, err), v.store.Close(dir))
		}
		next, err := v.store.Open(dir, name.Stored, flags, 0)
		last := i == len(names)-1
		if last && (err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP) {
			return transferPlace{dir: dir, name: name}, nil
		}
		_ = v.store.Close(dir) // only looked through
		if err != nil {
			return transferPlace{}, &fs.PathError{Op: "open", Path: path.Join(names[:i+1]...), Err: err}
		}
		dir = next
	}
	return transferPlace{dir: dir, into: true}, nil
}

// isBelow reports whether the directory dir is the given one, or below it.
func isBelow(store *backing.Store, dir int, top FileKey) (_ bool, err error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY
	at, err := store.Open(dir, ".", flags, 0)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, store.Close(at)) }()
	var last FileKey
	for {
		var st unix.Stat_t
		if err := store.Stat(at, &st); err != nil {
			return false, err
		}
		key := keyOf(&st)
		if key == top || key == last {
			return key == top, nil
		}
		last = key
		up, err := store.Open(at, "..", flags, 0)
		if err != nil {
			return false, err
		}
		_ = store.Close(at) // only looked through
		at = up
	}
}

// entryError says what could not be looked at.
func entryError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }
