package volume

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

// visit verifies an entry, and says whether to go on below it.
func (w *verify) visit(e treeEntry) (enter bool) {
	if w.ctx.Err() != nil || !w.name(e) {
		return false
	}
	switch e.kind {
	case unix.DT_REG:
		w.file(e) // its attributes, too
		return false
	case unix.DT_DIR:
		w.count.directories.Add(1)
	case unix.DT_LNK:
		w.count.links.Add(1)
		w.link(e)
	default:
		w.count.others.Add(1)
	}
	w.attributes(backing.Target{FD: e.dir, Name: e.name}, e)
	return true
}

// name verifies the name of an entry, and reports whether the entry is one of the volume. One whose name was damaged is:
// what is in it may be whole.
func (w *verify) name(e treeEntry) (ours bool) {
	shown, err := w.v.DecodeName(e.dir, e.name)
	switch {
	case err == nil && w.v.names != nil && crypto.IsLong(e.name) && shown == e.name:
		return w.lostName(e)
	case err == nil:
		return true
	case errors.Is(err, ErrHidden), errors.Is(err, crypto.ErrForeignName):
		id, ok := w.fileOfVolume(e)
		if e.foreign && !ok || errors.Is(err, ErrHidden) {
			w.found(Finding{Class: ClassNotice, Kind: KindForeign, Path: e.rel, Reason: "not a file of the volume, hidden and left alone"})
			return false
		}
		w.found(Finding{Class: ClassDamage, Kind: KindName, Path: e.rel, FileID: id, Err: err, Reason: "the name cannot be decrypted"})
		w.mark(e.rel)
		return true
	}
	w.unreadable(e.rel, err)
	return true
}

// lostName reports an entry whose sidecar is missing or wrong, unless it is just being removed.
func (w *verify) lostName(e treeEntry) (ours bool) {
	var st unix.Stat_t
	if err := w.store.StatAt(e.dir, e.name, &st); backing.IsNotExist(err) {
		return false
	}
	reason := "it does not belong to this name"
	if _, err := w.v.readFullName(e.dir, crypto.SidecarName(e.name)); err != nil {
		reason = err.Error()
	}
	id, _ := w.fileOfVolume(e)
	w.found(Finding{
		Class: ClassDamage, Kind: KindLostName, Path: e.rel, FileID: id,
		Reason: "its name is lost, " + crypto.SidecarName(e.name) + ": " + reason,
	})
	return true
}

// fileOfVolume reports whether an entry is a regular file with a header that claims to be of this volume, and its ID.
func (w *verify) fileOfVolume(e treeEntry) (id crypto.ID, ok bool) {
	if e.kind != unix.DT_REG {
		return id, false
	}
	fd, err := w.v.openForWalk(e.dir, e.name)
	if err != nil {
		return id, false
	}
	defer func() { _ = w.store.Close(fd) }() // only read
	slot, ok := w.v.newestSlot(fd)
	if !ok {
		return id, false
	}
	h, err := slot.Sealed.Peek()
	return h.File, err == nil && h.Volume == w.v.cfg.VolumeID
}

// link verifies the target of a symbolic link.
func (w *verify) link(e treeEntry) {
	stored, err := w.store.Readlink(e.dir, e.name)
	if err != nil {
		if !backing.IsNotExist(err) {
			w.unreadable(e.rel, err)
		}
		return
	}
	if _, err := w.v.DecodeTarget(stored); err != nil {
		w.found(Finding{Class: ClassDamage, Kind: KindLink, Path: e.rel, Err: err})
		w.mark(e.rel)
	}
}

// attributes verifies the values of the extended attributes of an entry.
func (w *verify) attributes(t backing.Target, e treeEntry) {
	all, err := w.listAttributes(t)
	if err != nil {
		if !backing.IsNotExist(err) {
			w.unreadable(e.rel, err)
		}
		return
	}
	special := e.kind != unix.DT_REG && e.kind != unix.DT_DIR
	for stored, value := range all {
		shown := w.v.AttrShown(stored)
		if shown == "" {
			continue
		}
		if _, encrypted, err := w.v.AttrName(shown, special); err != nil || !encrypted {
			continue
		}
		w.count.attributes.Add(1)
		if _, err := w.v.OpenAttr(shown, []byte(value)); err != nil {
			w.found(Finding{Class: ClassDamage, Kind: KindAttribute, Path: e.rel, Attribute: shown, Err: err})
		}
	}
}

// listAttributes is listXattrs for entries of which most have none, and from which some may be removed meanwhile.
func (w *verify) listAttributes(t backing.Target) (all map[string]string, err error) {
	for range verifyLooks {
		n, err := w.store.Listxattr(t, nil)
		if err == unix.EOPNOTSUPP || err == nil && n == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		all, err = listXattrs(w.store, t)
		if !errors.Is(err, unix.ENODATA) {
			return all, err
		}
	}
	return all, err
}

// own looks at a file that envfs keeps for itself, or that has such a name.
func (w *verify) own(e treeEntry) {
	inRoot := !strings.Contains(e.rel, "/")
	f := Finding{Class: ClassNotice, Kind: KindLeftover, Path: e.rel}
	switch {
	case crypto.IsSidecar(e.name):
		if !w.orphan(e) {
			return
		}
		f.Kind, f.Reason = KindOrphan, "the sidecar of a long name that is gone; it means nothing and may be removed"
		if w.Repair { // where an entry that was moved without it, because that repair was killed, finds its name again
			w.mark(e.rel)
		}
	case e.name == ConfigName && inRoot:
		return
	case isTempName(e.name) && inRoot:
		f.Reason = "left by a rewriting of " + ConfigName + " that was interrupted; the next one removes it"
	case e.name == journalTemp && inRoot:
		f.Reason = "left by the making of a journal that was interrupted; the next one removes it"
	case e.name == CrashJournal && inRoot:
		if w.inUse() {
			return
		}
		f.Kind, f.Reason = KindJournal, "journal left by an unclean end: mount once to replay it"
	case strings.HasPrefix(e.name, rekeyPrefix):
		f.Reason = "left by a rekey that was interrupted, or is running; the next rekey removes it"
	default:
		f.Kind, f.Reason = KindForeign, "the name is reserved, and no version of envfs known to this one makes it"
	}
	w.found(f)
}

// orphan reports whether a sidecar has no entry. A mount makes it before the entry and removes it after, so one that is
// alone gets a second look.
func (w *verify) orphan(e treeEntry) bool {
	for look := range 2 {
		var st unix.Stat_t
		if !backing.IsNotExist(w.store.StatAt(e.dir, crypto.LongOfSidecar(e.name), &st)) {
			return false
		}
		if look == 0 {
			w.pause()
		}
	}
	var st unix.Stat_t
	return w.store.StatAt(e.dir, e.name, &st) == nil
}

// inUse reports whether somebody else has the volume open for writing.
func (w *verify) inUse() bool {
	if w.v.lock != nil {
		return false // we have it ourselves
	}
	r := &root{store: w.store, dir: w.v.root, path: w.v.dir}
	lock, err := r.lock(false)
	if err != nil {
		return errors.Is(err, ErrLocked)
	}
	_ = lock.Close() // nothing was written through it
	return false
}

// pause waits between two looks at something that may be changing.
func (w *verify) pause() {
	select {
	case <-w.ctx.Done():
	case <-time.After(verifyPause):
	}
}
