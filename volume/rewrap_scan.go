package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
)

// scan looks at the header of each file and hands on those with work to do, open for writing.
func (r *rewrap) scan(ctx context.Context, items chan<- *rewrapItem) error {
	t := &tree{store: r.store, names: r.cfg.Names, failed: r.fail}
	t.visit = func(e treeEntry) bool {
		if e.kind == unix.DT_REG && !e.foreign {
			if err := r.look(ctx, e, items); err != nil {
				r.fail(e.rel, err)
			}
		}
		return !e.foreign
	}
	err := t.walk(ctx, r.root.fd(), "")
	if err == nil {
		r.count.complete.Store(true)
	}
	return err
}

// look opens a file, and hands it on if one of its slots is to be replaced. A file that is gone meanwhile is none.
func (r *rewrap) look(ctx context.Context, e treeEntry, items chan<- *rewrapItem) error {
	fd, owner, err := openForLook(r.store, e.dir, e.name)
	if backing.IsNotExist(err) {
		return nil
	}
	if err != nil {
		r.count.files.Add(1)
		return err
	}
	it, err := r.judge(e, fd)
	if it != nil && !r.DryRun && !owner {
		it, err = nil, fmt.Errorf("its times could not be kept: %w", fs.ErrPermission)
	}
	if it == nil || r.DryRun {
		_ = r.store.Close(fd) // only read from
		return err
	}
	it.fd, err = reopenForWriting(r.store, fd)
	_ = r.store.Close(fd) // only read from
	if err != nil {
		return err
	}
	select {
	case items <- it:
	case <-ctx.Done():
		r.closeItem(it)
	}
	return nil
}

// judge reads the header behind fd. It returns nil if there is nothing to do, or nothing that can be done.
func (r *rewrap) judge(e treeEntry, fd int) (*rewrapItem, error) {
	var st unix.Stat_t
	if err := r.store.Stat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || !r.first(&st) {
		return nil, nil
	}
	h, err := r.readHeader(fd, &st)
	if err == nil && h == nil {
		r.count.empty.Add(1)
		return nil, nil
	}
	r.count.files.Add(1)
	if err != nil {
		return nil, err
	}
	version, err := keyring.Wrapped(h.slot.Wrapped).Version()
	if err != nil {
		return nil, err
	}
	it := &rewrapItem{
		rel: e.rel, id: h.id, fd: -1, dev: uint64(st.Dev), sequence: h.slot.Sequence, old: keyring.Wrapped(h.slot.Wrapped),
	}
	switch {
	case version < r.version:
		if r.DryRun {
			r.count.rewrapped.Add(1)
		}
		return it, nil
	case h.otherIsOld(r.version):
		it.new, it.spare = it.old, true
		r.count.current.Add(1) // the old key that is still in the other slot is removed on the way
		return it, nil
	}
	r.count.current.Add(1)
	return nil, nil
}

// first reports whether a file is seen for the first time, under whichever of its names.
func (r *rewrap) first(st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return true
	}
	key := FileKey{Dev: uint64(st.Dev), Ino: st.Ino}
	r.linksMu.Lock()
	defer r.linksMu.Unlock()
	if r.links[key] {
		return false
	}
	r.links[key] = true
	return true
}

// bareHeader is a header as it can be read without any key.
type bareHeader struct {
	id     crypto.ID
	slot   crypto.Slot // that counts
	index  int         // its place
	sealed bool
	other  []byte // the other slot, as it is
}

// readHeader reads attributes and header of a file; the header is nil for an empty file. A mount makes and empties files
// whether a rewrap looks at them or not. So what looks like damage is looked at again, until two looks at an unchanged file
// agree.
func (r *rewrap) readHeader(fd int, st *unix.Stat_t) (*bareHeader, error) {
	var before fileStamp
	var fault string
	for n := 1; ; n++ {
		if err := r.store.Stat(fd, st); err != nil {
			return nil, err
		}
		h, err := r.readHeaderOnce(fd, st)
		stamp := stampOf(st)
		if !IsDamage(err) || stamp == before && err.Error() == fault {
			return h, err
		}
		if n == verifyLooks {
			return nil, fmt.Errorf("%w each time that it was read: %v", ErrFileChanged, err)
		}
		before, fault = stamp, err.Error()
		time.Sleep(verifyPause)
	}
}

func (r *rewrap) readHeaderOnce(fd int, st *unix.Stat_t) (*bareHeader, error) {
	if st.Size == 0 {
		return nil, nil
	}
	buf := make([]byte, r.layout.HeaderSize())
	n, err := r.store.ReadAt(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	if hollow, err := isHollow(r.store, fd, buf[:n], st.Size); err != nil || hollow && n == len(buf) {
		return nil, err
	}
	size := int(r.layout.SlotSize)
	slot, index, err := crypto.NewestSlot(buf[:n], size)
	if err != nil {
		return nil, err
	}
	h, err := slot.Sealed.Peek()
	if err != nil {
		return nil, err
	}
	if h.Volume != r.cfg.VolumeID {
		return nil, ErrOtherVolume
	}
	other := buf[(1-index)*size : (2-index)*size]
	return &bareHeader{id: h.File, slot: slot, index: index, sealed: h.Flags&crypto.FlagSealed != 0, other: other}, nil
}

// otherIsOld reports whether the slot that does not count holds a key of a version before the given one, or something that
// cannot be read and so might.
func (h *bareHeader) otherIsOld(version int) bool {
	slot, err := crypto.DecodeSlot(h.other)
	if err != nil {
		return !errors.Is(err, crypto.ErrNoSlot)
	}
	return versionOf(keyring.Wrapped(slot.Wrapped)) < version
}

// openForLook opens a file for reading without moving its access time, whatever it turns out to be. owner is false for a file
// of somebody else, of which that cannot be asked, and whose times could not be set.
func openForLook(store *backing.Store, dir int, name string) (fd int, owner bool, err error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	fd, err = store.Open(dir, name, flags|unix.O_NOATIME, 0)
	if err != unix.EPERM {
		return fd, true, err
	}
	fd, err = store.Open(dir, name, flags, 0)
	return fd, false, err
}

// reopenForWriting opens the file behind fd for reading and writing. An owner may do so even where the mode forbids it: the
// mode is changed for that moment, because git and others keep read-only files by the thousand.
func reopenForWriting(store *backing.Store, fd int) (int, error) {
	const flags = unix.O_RDWR | unix.O_NOATIME
	n, err := store.Reopen(fd, flags)
	if err != unix.EACCES {
		return n, err
	}
	var st unix.Stat_t
	if err := store.Stat(fd, &st); err != nil {
		return -1, err
	}
	target := backing.Target{FD: fd}
	mode := st.Mode & 0o7777
	if store.Chmod(target, mode|0o600) != nil {
		return -1, err
	}
	n, err = store.Reopen(fd, flags)
	if merr := store.Chmod(target, mode); merr != nil {
		if err == nil {
			_ = store.Close(n) // nothing was written through it
		}
		return -1, errors.Join(err, fmt.Errorf("restoring mode %#o: %w", mode, merr))
	}
	return n, err
}
