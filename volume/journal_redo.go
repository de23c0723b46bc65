package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// redoFiles finds the files in one walk over the names in the volume and brings each to what its records say.
func (r *replay) redoFiles() error {
	inodes := map[uint64]bool{}
	for _, f := range r.files {
		inodes[f.inode] = true
	}
	var mu sync.Mutex // the walk visits several entries at a time
	var failed, unseen []error
	t := &tree{store: r.v.store, names: r.v.cfg.Names}
	t.visit = func(e treeEntry) bool {
		if e.kind != unix.DT_REG {
			return !e.foreign
		}
		if !r.copied && !inodes[e.ino] {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		file, err := r.match(e)
		if err != nil {
			unseen = append(unseen, fmt.Errorf("%s: %w", e.rel, err))
		} else if file != nil {
			if err := r.apply(e, file); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", e.rel, err))
			}
		}
		return false
	}
	t.failed = func(rel string, err error) {
		mu.Lock()
		defer mu.Unlock()
		unseen = append(unseen, err)
	}
	if err := t.walk(context.Background(), r.v.Root(), ""); err != nil {
		return err
	}
	if len(r.files) > 0 { // else what could not be looked at is none of them
		failed = append(failed, unseen...)
	}
	return errors.Join(failed...)
}

// match returns what is to be done for the file that is called so: mostly nil.
func (r *replay) match(e treeEntry) (file *redo, err error) {
	flags := unix.O_RDONLY | unix.O_NOATIME
	fd, err := withoutNoAtime(flags, func(flags int) (int, error) { return openPrivate(r.v.store, e, flags) })
	if backing.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.v.store.Close(fd)) }()
	var st unix.Stat_t
	if err := r.v.store.Stat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, err
	}
	id, open, err := r.identify(fd)
	file = r.files[id]
	if err != nil || file == nil || !open || !r.isMeant(file, &st) {
		return nil, err
	}
	delete(r.files, id) // hard links lead to the same
	return file, nil
}

// identify returns the file ID in the header of a file. open is false if there is none, or if the file was sealed: then all
// was durable in place before.
func (r *replay) identify(fd int) (id crypto.ID, open bool, err error) {
	buf := make([]byte, r.v.layout.HeaderSize())
	n, err := r.v.store.ReadAt(fd, buf, 0)
	if err != nil {
		return id, false, err
	}
	slot, _, err := crypto.NewestSlot(buf[:n], int(r.v.layout.SlotSize))
	if err != nil {
		return id, false, nil // empty, or damaged: the next open says so
	}
	h, err := slot.Sealed.Peek()
	if err != nil {
		return id, false, nil
	}
	return h.File, h.Volume == r.v.cfg.VolumeID && h.Flags&crypto.FlagSealed == 0, nil
}

// copySlack is how long after its last record a file may have been modified and still be the one that was recorded: the time
// between a record and the write in place, on a slow disk.
const copySlack = 10 * time.Second

// isMeant reports whether the records are about this very file. In a copy of a volume inode numbers say nothing, and journal and
// file may be of different moments, if the volume was in use; a file that is newer than its last record is left alone.
func (r *replay) isMeant(file *redo, st *unix.Stat_t) bool {
	if r.copied {
		return st.Mtim.Nano() <= file.time+int64(copySlack)
	}
	return st.Ino == file.inode
}

// apply writes the blocks of a file in place and makes them durable.
func (r *replay) apply(e treeEntry, file *redo) (err error) {
	fd, err := openPrivate(r.v.store, e, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.v.store.Close(fd)) }()
	var st unix.Stat_t
	if err := r.v.store.Stat(fd, &st); err != nil {
		return err
	}
	if file.cut >= 0 {
		// What is cut off here was cut off by an application. What was there again later has records, which follow.
		st.Size = r.v.layout.CipherSize(file.cut)
		if err := r.v.store.Truncate(fd, st.Size); err != nil {
			return err
		}
	}
	if size := r.v.layout.CipherSize(file.reach); st.Size < size {
		st.Size = size
		if err := r.v.store.Truncate(fd, size); err != nil {
			return err
		}
	}
	for _, h := range file.holes {
		if err := r.v.punch(fd, h, st.Size); err != nil {
			return err
		}
	}
	if err := r.writeBlocks(fd, st.Size, file); err != nil {
		return err
	}
	if mtime := unix.NsecToTimespec(file.time); st.Mtim.Nano() < file.time {
		if err := r.v.store.SetTimes(backing.Target{FD: fd}, unix.Timespec{Nsec: unix.UTIME_OMIT}, mtime); err != nil {
			return err
		}
	}
	r.done++
	return r.v.store.Sync(fd, false)
}

// writeBlocks writes blocks in place into a file of size bytes on disk.
func (r *replay) writeBlocks(fd int, size int64, file *redo) error {
	buf := make([]byte, crypto.CipherBlockSize)
	for _, block := range file.order() {
		place := file.blocks[block]
		offset := r.v.layout.BlockOffset(block)
		if place.size < crypto.CipherBlockSize && offset+int64(place.size) < size {
			// A short block in the middle of a file: only in a copy, of which journal and file do not belong together.
			r.v.log.Warn("a block in the journal does not fit its file and was left out", "block", block)
			continue
		}
		n, err := r.v.store.ReadAt(r.fd, buf[:place.size], place.at)
		if err != nil {
			return err
		}
		if n < place.size {
			return ErrJournal
		}
		if _, err := r.v.store.WriteAt(fd, buf[:n], offset); err != nil {
			return err
		}
		r.blocks++
	}
	return nil
}

// withoutNoAtime opens with O_NOATIME, or without if this process may not.
func withoutNoAtime(flags int, open func(flags int) (int, error)) (int, error) {
	fd, err := open(flags)
	if err == unix.EPERM {
		return open(flags &^ unix.O_NOATIME)
	}
	return fd, err
}

// openPrivate opens an entry of this process's own, even if its mode says that its owner may not.
func openPrivate(store *backing.Store, e treeEntry, flags int) (int, error) {
	fd, err := store.Open(e.dir, e.name, flags|unix.O_NONBLOCK, 0)
	if err != unix.EACCES {
		return fd, err
	}
	var st unix.Stat_t
	if serr := store.StatAt(e.dir, e.name, &st); serr != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, err
	}
	target := backing.Target{FD: e.dir, Name: e.name}
	mode := st.Mode &^ unix.S_IFMT
	if store.Chmod(target, mode|0o600) != nil {
		return -1, err
	}
	fd, err = store.Open(e.dir, e.name, flags|unix.O_NONBLOCK, 0)
	if cerr := store.Chmod(target, mode); cerr != nil && err == nil {
		return -1, errors.Join(cerr, store.Close(fd))
	}
	return fd, err
}
