package volume

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// publish puts the copy in the place of the file, under each of its names.
func (w *rekeyWork) publish() error {
	if err := cmp.Or(keyAudit{w.Audit}.ready(), w.unchanged()); err != nil {
		return errors.Join(err, w.removeTemp())
	}
	if err := w.Journal.note(w.id); err != nil {
		return errors.Join(err, w.removeTemp())
	}
	if w.file.links == 1 {
		if err := w.v.store.Rename(w.dir, w.tempName(), w.dir, w.name, 0); err != nil {
			return errors.Join(err, w.removeTemp())
		}
	} else {
		var st unix.Stat_t
		if err := w.v.store.Stat(w.temp, &st); err != nil {
			return errors.Join(err, w.removeTemp())
		}
		// From here on the temporary file stays until all is done, also after an error: some names may be its own.
		if err := w.v.relink(w.dir, w.tempName(), &st, w.file.names); err != nil {
			return fmt.Errorf("some of its names are replaced, others not yet; rekey again to finish: %w", err)
		}
		if err := w.v.store.Unlink(w.dir, w.tempName()); err != nil {
			return err
		}
	}
	w.count.done.Add(w.file.size)
	err := keyAudit{w.Audit}.record(KeyChange{Path: w.file.names[0], ID: w.source.ID(), NewID: w.id, KEK: w.kek})
	return errors.Join(err, w.v.store.Sync(w.dir, false))
}

// unchanged makes sure that nobody has written to the file, or is about to, past the lock of the volume.
func (w *rekeyWork) unchanged() error {
	var now unix.Stat_t
	if err := w.v.store.StatAt(w.dir, w.name, &now); err != nil {
		return err
	}
	switch {
	case now.Ino != w.before.Ino || now.Dev != w.before.Dev || now.Size != w.before.Size ||
		now.Mtim != w.before.Mtim || now.Ctim != w.before.Ctim || now.Nlink != w.before.Nlink:
		return ErrFileChanged
	case isOpenElsewhere(w.source.FD()):
		return ErrFileOpen
	}
	return nil
}

// relink makes names those of the file called temp in dir, whose attributes are st, one after the other, and durably.
func (v *Volume) relink(dir int, temp string, st *unix.Stat_t, names []string) error {
	synced := make(map[string]bool)
	for _, rel := range names {
		if err := v.relinkOne(dir, temp, st, rel); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	for _, rel := range names {
		parent := path.Dir(rel)
		if synced[parent] {
			continue
		}
		synced[parent] = true
		fd, _, err := v.openParent(rel)
		if err != nil {
			return err
		}
		err = v.store.Sync(fd, false)
		if err = errors.Join(err, v.store.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

func (v *Volume) relinkOne(dir int, temp string, st *unix.Stat_t, rel string) (err error) {
	to, name, err := v.openParent(rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.store.Close(to)) }()
	var now unix.Stat_t
	if err := v.store.StatAt(to, name, &now); err != nil {
		return err
	}
	if now.Ino == st.Ino && now.Dev == st.Dev {
		return nil // done before; a rename would do nothing and leave the link behind
	}
	link := temp + rekeyLink
	err = v.store.Link(dir, temp, to, link)
	if errors.Is(err, unix.EEXIST) {
		if err = v.store.Unlink(to, link); err == nil {
			err = v.store.Link(dir, temp, to, link)
		}
	}
	if err != nil {
		return err
	}
	if err := v.store.Rename(to, link, to, name, 0); err != nil {
		uerr := v.store.Unlink(to, link)
		if backing.IsNotExist(uerr) {
			uerr = nil
		}
		return errors.Join(err, uerr)
	}
	return nil
}

// splitNames takes a list apart in which each name ends with a zero byte.
func splitNames(list []byte) []string {
	return strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 })
}
