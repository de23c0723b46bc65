package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Retain adds a user. It fails when the File was closed meanwhile, and the inode must be opened anew.
func (f *File) Retain() bool {
	f.life.Lock()
	defer f.life.Unlock()
	if f.closed {
		return false
	}
	f.refs++
	return true
}

// Release ends one use. With the last one the file is closed, at once if its header is as it should be; a file that was
// written is handed to the sealer first, unless everything is durable already and it can be sealed on the spot.
func (f *File) Release() {
	f.life.Lock()
	defer f.life.Unlock()
	f.refs--
	if f.refs > 0 || f.closed {
		return
	}
	if !f.unlinked.Load() {
		f.restoreMtime()
	}
	if f.unlinked.Load() || f.header.get() != headerUnsealed || !f.writable {
		f.closeLocked()
		return
	}
	// In a round of the sealer, what was written is about to be synced, not yet durable.
	if f.queued || f.extents.dirty.Load() {
		f.queueLocked()
		return
	}
	f.sealAndCloseLocked()
}

// ReleaseAll ends every use at once. It is for the end of a mount, when no call on the File is under way or to come, and the
// sealer has been waited for.
func (f *File) ReleaseAll() {
	f.life.Lock()
	users := f.refs
	f.refs = min(users, 1)
	f.life.Unlock()
	if users > 0 {
		f.Release()
	}
}

func (f *File) queueLocked() {
	if !f.queued {
		f.queued = true
		f.v.sealer.add(f)
	}
}

// Unlinked tells the File that it has lost its last name: what is left of it needs no seal.
func (f *File) Unlinked() {
	f.life.Lock()
	defer f.life.Unlock()
	f.unlinked.Store(true)
	if f.refs == 0 && !f.closed {
		f.closeLocked()
	}
}

// Linked takes Unlinked back: a file made without a name was given one.
func (f *File) Linked() {
	f.life.Lock()
	defer f.life.Unlock()
	f.unlinked.Store(false)
	f.extents.attributes.Store(true)
}

// sealQueued is the sealer's part of Release: it seals and closes the file if nobody has taken it up again. The data must
// have been made durable after takeDirty.
func (f *File) sealQueued() {
	f.life.Lock()
	defer f.life.Unlock()
	f.queued = false
	if f.refs > 0 || f.closed {
		return
	}
	if f.extents.dirty.Load() {
		f.queueLocked() // written and closed again since the sync
		return
	}
	f.sealAndCloseLocked()
}

// idle reports whether the sealer may work on the file, and notes that what was written so far is about to be synced.
func (f *File) idle() bool {
	f.life.Lock()
	defer f.life.Unlock()
	if f.refs > 0 || f.closed {
		f.queued = false
		return false
	}
	f.promised.Store(true)
	f.extents.takeUnsynced(true)
	return true
}

// unsynced is called when the sync that idle announced failed: the file is closed without a seal, which is the truth.
func (f *File) unsynced() {
	f.life.Lock()
	defer f.life.Unlock()
	f.queued = false
	f.extents.restoreUnsynced(unsynced{dirty: true, unprotected: true})
	if f.refs == 0 && !f.closed {
		f.closeLocked()
	}
}

func (f *File) sealAndCloseLocked() {
	// A key that is refused is not asked for again: with many such files that would keep an unmount waiting.
	if f.key.refusal() == nil {
		if err := f.seal(); err != nil {
			f.v.log.Error("cannot seal a file; it stays readable as it is", "file_id", f.key.id, "error", err)
		}
	}
	f.closeLocked()
}

func (f *File) closeLocked() {
	f.closed = true
	f.v.newFiles.remove(f)
	if f.unlinked.Load() || !f.extents.dirty.Load() {
		f.v.journal.letGo(f.key.id)
	}
	err := f.v.store.Close(f.FD())
	if f.spare >= 0 {
		err = errors.Join(err, f.v.store.Close(f.spare))
	}
	if err != nil {
		f.v.log.Error("closing a file reported an error", "file_id", f.key.id, "error", err)
	}
	f.key.close(f.unlinked.Load())
	f.events.Closed()
}

// Writable reports whether the File may be written.
func (f *File) Writable() bool {
	f.life.Lock()
	defer f.life.Unlock()
	return f.writable
}

// MakeWritable turns a File opened for reading into one for reading and writing. open is called to open the backing file
// once more, for both; the descriptor that it returns is taken over.
func (f *File) MakeWritable(ctx context.Context, open func(fd int) (int, error)) error {
	if f.Writable() {
		return nil
	}
	s := f.extents.lockAll()
	defer f.extents.unlock(s)
	if !f.key.ready.Load() {
		if err := f.key.generate(ctx, f.v); err != nil {
			return err
		}
	}
	f.life.Lock()
	defer f.life.Unlock()
	if f.writable {
		return nil
	}
	fd, err := open(f.FD())
	if err != nil {
		return err
	}
	if err := f.sameFile(fd); err != nil {
		return errors.Join(err, f.v.store.Close(fd))
	}
	f.spare = f.FD()
	f.fd.Store(int64(fd))
	f.writable = true
	return nil
}

// sameFile makes sure that fd leads to the inode that the File has open.
func (f *File) sameFile(fd int) error {
	var a, b unix.Stat_t
	if err := f.v.store.Stat(f.FD(), &a); err != nil {
		return err
	}
	if err := f.v.store.Stat(fd, &b); err != nil {
		return err
	}
	if a.Ino != b.Ino || a.Dev != b.Dev {
		return fmt.Errorf("the file was replaced behind the mount: %w", unix.ESTALE)
	}
	return nil
}
