package volume

import (
	"context"
	"errors"
	"path"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

// transferDir is a directory of the source and the one that it becomes. It is closed when nothing uses it any more.
type transferDir struct {
	t        *transfer
	src, dst int     // descriptors
	srcPath  string  // for messages
	dstPath  string  // below transfer.root
	made     FileKey // identity of dst
	users    atomic.Int64
}

func (d *transferDir) retain() { d.users.Add(1) }

func (d *transferDir) release() {
	if d.users.Add(-1) > 0 {
		return
	}
	err := errors.Join(d.t.from.calls().Close(d.src), d.t.to.calls().Close(d.dst))
	if err != nil {
		d.t.v.log.Debug("closing a directory reported an error", "error", err)
	}
}

func (t *transfer) identify(d *transferDir) error {
	var st unix.Stat_t
	err := t.to.calls().Stat(d.dst, &st)
	d.made = keyOf(&st)
	return err
}

// directory copies what is in the directory d, which it lets go of, and leaves its attributes to the end. kept: it was
// there and keeps its own.
func (t *transfer) directory(ctx context.Context, d *transferDir, kept bool) error {
	d.retain()
	defer d.release()
	if err := t.identify(d); err != nil {
		t.failed(d.srcPath, err)
		return nil
	}
	var st unix.Stat_t
	if err := t.from.calls().Stat(d.src, &st); err != nil {
		t.failed(d.srcPath, err)
		return nil
	}
	if kept {
		if err := t.to.enter(d.dst); err != nil {
			t.failed(d.srcPath, err)
			return nil
		}
	}
	if !kept || t.Force {
		done := &transferDone{src: d.srcPath, dst: path.Join(d.dstPath, "."), made: d.made}
		done.attrs = t.attributes(backing.Target{FD: d.src}, &st)
		t.finished = append(t.finished, done)
	}
	if !kept {
		t.count.directories.Add(1)
	}
	return t.eachEntry(ctx, d.src, d.srcPath, func(stored string) error { return t.entry(ctx, d, stored) })
}

// eachEntry calls f with the name of each entry of an open directory.
func (t *transfer) eachEntry(ctx context.Context, fd int, src string, f func(stored string) error) error {
	buf := make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := t.from.calls().ReadDir(fd, buf)
		if err != nil {
			t.failed(src, err)
			return nil
		}
		if n == 0 {
			return nil
		}
		for rest := buf[:n]; len(rest) > 0; {
			e, size := parseEntry(rest)
			rest = rest[size:]
			if e.name == "." || e.name == ".." {
				continue
			}
			if err := f(e.name); err != nil {
				return err
			}
		}
	}
}

// entry copies one entry of d under the name that belongs to it.
func (t *transfer) entry(ctx context.Context, d *transferDir, stored string) error {
	src := path.Join(d.srcPath, stored)
	shown, ok := t.shownName(d.src, stored, src)
	if !ok {
		return nil
	}
	name, err := t.to.name(shown)
	if err != nil {
		t.failed(src, err)
		return nil
	}
	return t.named(ctx, d, stored, name)
}

// shownName returns what an entry is called in the clear. ok is false for one that is not copied; if that is a fault, it is
// reported.
func (t *transfer) shownName(dir int, stored, src string) (name string, ok bool) {
	name, err := t.from.name(dir, stored)
	source, encrypted := t.from.(*cipherSource)
	switch {
	case err == nil:
	case errors.Is(err, ErrHidden):
		return "", false
	case encrypted && errors.Is(err, crypto.ErrForeignName) && !couldBeStored(source.v.cfg.Names, stored):
		t.count.foreign.Add(1)
		return "", false
	case encrypted && errors.Is(err, crypto.ErrForeignName):
		t.failed(src, errNameDamaged)
		if !source.salvage {
			return "", false
		}
	default:
		t.failed(src, err)
	}
	if !isPlainName(name) {
		t.failed(src, ErrBadPath)
		return "", false
	}
	return name, true
}

// named copies an entry of d under a given name.
func (t *transfer) named(ctx context.Context, d *transferDir, stored string, name Name) error {
	j := &transferJob{t: t, dir: d, srcName: stored, name: name}
	if err := t.from.calls().StatAt(d.src, stored, &j.st); err != nil {
		t.failed(j.src(), err)
		return nil
	}
	if j.kind() == unix.S_IFDIR {
		return t.subdirectory(ctx, j)
	}
	if j.st.Nlink > 1 {
		key := keyOf(&j.st)
		if origin := t.origins[key]; origin != nil {
			t.links = append(t.links, transferLink{origin: origin, src: j.src(), dst: j.dst(), name: name})
			return nil
		}
		j.origin = &transferOrigin{dst: j.dst()}
		t.origins[key] = j.origin
	}
	if j.regular() {
		t.count.found.Add(j.st.Size)
	}
	return t.add(ctx, j)
}

// subdirectory copies a directory. Until its end only this user may enter it.
func (t *transfer) subdirectory(ctx context.Context, j *transferJob) error {
	if t.volume == keyOf(&j.st) {
		t.failed(j.src(), ErrInsideVolume)
		return nil
	}
	sub := &transferDir{t: t, srcPath: j.src(), dstPath: j.dst()}
	var err error
	if sub.src, err = t.from.calls().Open(j.dir.src, j.srcName, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		t.failed(j.src(), err)
		return nil
	}
	var kept bool
	if sub.dst, kept, err = t.makeDirectory(j.dir.dst, j.name); err != nil {
		err = errors.Join(err, t.from.calls().Close(sub.src))
		if stopsAll(err) {
			return err
		}
		t.failed(j.src(), err)
		return nil
	}
	return t.directory(ctx, sub, kept)
}

// makeDirectory makes a directory and opens it, or opens the one that is there (kept).
func (t *transfer) makeDirectory(dir int, name Name) (fd int, kept bool, err error) {
	store := t.to.calls()
	if err := t.v.StoreFullName(dir, name); err != nil {
		return -1, false, err
	}
	err = store.Mkdir(dir, name.Stored, 0o700)
	kept = err == unix.EEXIST
	if err != nil && !kept {
		t.dropUnused(dir, name)
		return -1, false, err
	}
	fd, err = store.Open(dir, name.Stored, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return fd, kept, err
}
