package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

var (
	// ErrBadQuarantine: a directory to which nothing can be moved.
	ErrBadQuarantine = errors.New("cannot be the quarantine")
	errInQuarantine  = errors.New("the quarantine holds an entry of this name already")
)

// reseal seals an unsealed file all of whose blocks have been read, and makes holes of its torn ones. Its times stay.
func (w *verify) reseal(fd int, l fileLook) error {
	var st unix.Stat_t
	if err := w.store.Stat(fd, &st); err != nil {
		return err
	}
	if stampOf(&st) != l.stamp {
		return ErrFileChanged
	}
	n, err := reopenForWriting(w.store, fd)
	if err != nil {
		return err
	}
	f, err := w.v.OpenFile(w.ctx, n, st.Size, true, noEvents{})
	if err != nil {
		return errors.Join(err, w.store.Close(n))
	}
	f.extents.holesUnknown = l.holes // nobody else has the File yet
	err = f.dropTorn(l.bad)
	if err == nil {
		err = f.Sync(false)
	}
	if err == nil {
		err = w.store.SetTimes(f.target(), st.Atim, st.Mtim)
	}
	f.Release()
	if err == nil && f.header.get() != headerSealed {
		err = errors.New("the header was not written")
	}
	return err
}

// dropTorn makes holes of torn blocks.
func (f *File) dropTorn(bad *badBlocks) error {
	bad.mu.Lock()
	defer bad.mu.Unlock()
	for _, r := range bad.runs {
		from, to := r.lo*crypto.BlockSize, min(r.hi*crypto.BlockSize, f.Size())
		if err := f.ZeroRange(from, to-from, true); err != nil {
			return err
		}
	}
	return nil
}

// quarantine is where entries are moved to that cannot be read, or mean nothing, under the path that it has in the ciphertext directory.
type quarantine struct {
	w    *verify
	path string
	fd   int // -1: not made yet
}

// openQuarantine makes sure that entries can be moved there, before the long work, but makes nothing yet.
func (w *verify) openQuarantine() (*quarantine, error) {
	q := &quarantine{w: w, fd: -1}
	var err error
	if q.path, err = filepath.Abs(w.Quarantine); err != nil {
		return nil, err
	}
	above := q.path // as far as it is there
	for {
		_, err := os.Lstat(above)
		if err == nil || above == "/" {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		above = filepath.Dir(above)
	}
	reason, err := w.unfit(above)
	if err == nil && reason != "" {
		err = fmt.Errorf("%s: %w: %s", q.path, ErrBadQuarantine, reason)
	}
	return q, err
}

// unfit says why nothing can be moved to a directory, or to one to be made below it.
func (w *verify) unfit(dir string) (reason string, err error) {
	var root, there unix.Stat_t
	if err := w.store.Stat(w.v.Root(), &root); err != nil {
		return "", err
	}
	if err := unix.Stat(dir, &there); err != nil {
		return "", &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	volume, err := filepath.EvalSymlinks(w.v.dir)
	if err != nil {
		return "", err
	}
	below, err := filepath.Rel(volume, real)
	switch {
	case err != nil || filepath.IsLocal(below):
		return "it is in the ciphertext directory", nil
	case there.Mode&unix.S_IFMT != unix.S_IFDIR:
		return dir + " is not a directory", nil
	case there.Dev != root.Dev:
		return "it is on another file system", nil
	}
	return "", nil
}

// finish makes the seals durable and moves what cannot be read, and sidecars without an entry.
func (w *verify) finish(q *quarantine) error {
	defer func() {
		if q.fd >= 0 {
			_ = w.store.Close(q.fd) // only used to get at what is in it
		}
	}()
	if w.count.resealed.Load() > 0 {
		if err := w.store.SyncFS(w.v.Root()); err != nil {
			return err
		}
	}
	moved := make(map[string]bool)
	for _, rel := range w.entriesToMove() {
		if hasMoved(rel, moved) {
			continue // it has gone along
		}
		if err := q.move(rel); err != nil {
			w.found(Finding{Class: ClassUnchecked, Kind: KindRepair, Path: rel, Err: fmt.Errorf("cannot be moved: %w", err)})
			continue
		}
		moved[rel] = true
		w.count.quarantined.Add(1)
		if w.Moved != nil {
			w.Moved(rel, filepath.Join(q.path, rel))
		}
	}
	return nil
}

// hasMoved reports whether one of the directories above rel is in dirs.
func hasMoved(rel string, dirs map[string]bool) bool {
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if dirs[dir] {
			return true
		}
	}
	return false
}

// move moves an entry, and the sidecar that belongs to it, durably. It replaces nothing.
func (q *quarantine) move(rel string) error {
	store := q.w.store
	if err := q.make(); err != nil {
		return err
	}
	from, name, err := q.w.v.openParent(rel)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close(from) }() // a directory: what was done in it is done, and synced
	to, err := q.directory(path.Dir(rel))
	if err != nil {
		return err
	}
	defer func() { _ = store.Close(to) }()
	if err := q.rename(from, to, name); err != nil {
		return err
	}
	if crypto.IsLong(name) {
		err := q.rename(from, to, crypto.SidecarName(name))
		if err != nil && !backing.IsNotExist(err) {
			q.w.v.log.Warn("cannot move the full name of an entry in quarantine along", "name", name, "error", err)
		}
	}
	if err := store.Sync(to, false); err != nil {
		return err
	}
	return store.Sync(from, false)
}

// rename moves one name, unless it is taken. File systems that cannot check that in the same step get a look before.
func (q *quarantine) rename(from, to int, name string) error {
	err := q.w.store.Rename(from, name, to, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		var st unix.Stat_t
		if err = q.w.store.StatAt(to, name, &st); backing.IsNotExist(err) {
			return q.w.store.Rename(from, name, to, name, 0)
		}
		if err == nil {
			err = unix.EEXIST
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return errInQuarantine
	}
	return err
}

// make makes the quarantine if it is not there.
func (q *quarantine) make() (err error) {
	if q.fd >= 0 {
		return nil
	}
	if err := os.MkdirAll(q.path, 0o700); err != nil {
		return err
	}
	q.fd, err = unix.Open(q.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// directory opens a directory in the quarantine and makes it, and those above it, if it is not there.
func (q *quarantine) directory(rel string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	store := q.w.store
	fd, err := store.Open(q.fd, ".", flags, 0)
	if err != nil || rel == "." {
		return fd, err
	}
	for name := range strings.SplitSeq(rel, "/") {
		err := store.Mkdir(fd, name, 0o700)
		if err == nil {
			err = store.Sync(fd, false)
		} else if errors.Is(err, unix.EEXIST) {
			err = nil
		}
		next := -1
		if err == nil {
			next, err = store.Open(fd, name, flags, 0)
		}
		_ = store.Close(fd) // what was made in it is durable
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}
