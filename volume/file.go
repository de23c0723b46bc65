package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// File is one encrypted regular file with its key at hand. One File stands for one inode, however many handles use it:
// it knows the plaintext size, serialises what must not overlap, and seals the header when the last user has gone.
//
// LOCK ORDER: (a held span) → life → header.mu → extents.mu → times. A span is not a mutex but behaves as one: it is taken
// first and never waited for while another lock is held. No mutex is held while the key service is asked.
//
// Invariants, true whenever no exclusive span is held:
//   - every block below the last one is stored whole, or is a hole (all bytes zero);
//   - the last block is stored with exactly the bytes that eof leaves for it;
//   - the backing size is layout.CipherSize(eof), or 0 while the file is empty and has no header;
//   - the header on disk is unsealed before the first byte of data changes, and durably so unless the file is new.
type File struct {
	v       *Volume
	events  FileEvents
	extents extents
	header  fileHeader
	key     fileKey

	fd atomic.Int64 // the backing file; replaced once, when a reader's descriptor is upgraded to read-write
	// spare is the descriptor that an upgrade replaced. It is kept open until the File is closed, because a read may
	// still be using it. Guarded by life.
	spare int

	life     sync.Mutex
	refs     int         // guarded by life
	closed   bool        // guarded by life
	queued   bool        // waiting for the sealer; guarded by life
	writable bool        // fd allows writing; guarded by life
	unlinked atomic.Bool // no name is left, so that sealing is pointless; changed with life held
	changed  atomic.Bool
	anySize  bool // a size that contradicts the seal is no error: the sealed one counts; set before the File is shared
	kept     keptMtime
	// promised: somebody was told, or may believe, that what the file holds is durable. born is when it was made, if not so.
	promised atomic.Bool
	born     time.Time
	torn     tornTail
	times    sync.Mutex // held while a change of times must not be torn by sealing, which restores them
}

// FileEvents is told what happens to a File outside of any call on it. Methods must not call back into the File.
type FileEvents interface {
	// Sealed reports that sealing moved the backing ctime, which no application caused, from before to after.
	Sealed(before, after unix.Timespec)
	// Closed reports that the File has let go of its descriptor; Retain will fail from now on.
	Closed()
}

// ErrReadOnly is returned by calls that would change a File opened for reading.
var ErrReadOnly = fmt.Errorf("file is open for reading only: %w", unix.EBADF)

// NewKey takes a DEK from the pool for a file that is about to be made. It waits for the key service when the pool is empty,
// so it is called before any lock is taken. The key goes to NewFile, or is wiped.
func (v *Volume) NewKey(ctx context.Context) (keyring.Fresh, error) { return v.pool.Get(ctx) }

// WaitForRoom waits while too many files that were written and closed wait to be sealed. Whoever makes many files calls it
// before each, before any lock is taken.
func (v *Volume) WaitForRoom(ctx context.Context) error { return v.sealer.room(ctx) }

// NewFile takes over the descriptor fd of a regular backing file that has just been created, is empty, and is open for
// reading and writing. The file has no header until the first byte is written. On an error fd stays the caller's; key is the
// file's in any case.
func (v *Volume) NewFile(fd int, key keyring.Fresh, ev FileEvents) (*File, error) {
	f := v.newFile(fd, true, ev)
	f.header.fresh = true
	f.header.epoch = v.creations.Load()
	f.born = time.Now()
	if err := f.key.adopt(v, key); err != nil {
		return nil, err
	}
	return f, nil
}

// OpenFile takes over the descriptor fd of a regular backing file whose size is size bytes, reads and checks its header
// and gets its key. With writable, fd must be open for reading and writing. An empty file opened for reading has no key
// and needs none. On an error fd stays the caller's.
func (v *Volume) OpenFile(ctx context.Context, fd int, size int64, writable bool, ev FileEvents) (*File, error) {
	f := v.newFile(fd, writable, ev)
	f.promised.Store(true)
	if err := f.load(ctx, size); err != nil {
		return nil, err
	}
	return f, nil
}

func (v *Volume) newFile(fd int, writable bool, ev FileEvents) *File {
	f := &File{v: v, events: ev, spare: -1, refs: 1, writable: writable}
	f.fd.Store(int64(fd))
	f.key.onDisk = func() keyring.Wrapped { return v.wrappedIn(f.FD()) }
	f.extents.init()
	f.torn.from.Store(wholeFile)
	f.extents.unprotected.Store(true) // nothing is known of what happened before
	f.extents.attributes.Store(true)
	return f
}

// load reads the header, unless there is none yet, and fills in key and size.
func (f *File) load(ctx context.Context, size int64) error {
	if size == 0 {
		if !f.writable {
			return nil
		}
		return f.key.generate(ctx, f.v)
	}
	buf := make([]byte, f.v.layout.HeaderSize())
	n, err := f.v.store.ReadAt(int(f.fd.Load()), buf, 0)
	if err != nil {
		return err
	}
	buf = buf[:n]
	if int64(n) < f.v.layout.HeaderSize() {
		return fmt.Errorf("%w: %d bytes", crypto.ErrTruncatedHeader, n)
	}
	switch hollow, err := isHollow(f.v.store, f.FD(), buf, size); {
	case err != nil:
		return err
	case hollow:
		return f.loadHollow(ctx, size)
	}
	slot, index, err := crypto.NewestSlot(buf, int(f.v.layout.SlotSize))
	if err != nil {
		return err
	}
	if err := f.key.open(ctx, f.v, keyring.Wrapped(slot.Wrapped)); err != nil {
		return err
	}
	if err := f.accept(slot, index, size); err != nil {
		f.key.close(false)
		return err
	}
	return nil
}

// loadHollow takes over the size of a hollow file, which is all holes and gets its header with the first write.
func (f *File) loadHollow(ctx context.Context, size int64) (err error) {
	f.header.hollow = true
	f.extents.holesUnknown = true
	if f.extents.eof, err = f.v.layout.PlainSize(size); err != nil && !errors.Is(err, crypto.ErrTornTail) {
		return err
	}
	if f.extents.eof > 0 {
		var st unix.Stat_t
		if err := f.v.store.Stat(f.FD(), &st); err != nil {
			return err
		}
		f.v.log.Warn("a file has a size but neither header nor data, so it reads as zeros: it was never synced before a crash, or it was wiped",
			"inode", st.Ino)
	}
	if !f.writable {
		return nil
	}
	return f.key.generate(ctx, f.v)
}

// accept checks the newest slot against the key, the volume and the size on disk, and adopts what it says.
func (f *File) accept(slot crypto.Slot, index int, size int64) error {
	h, err := f.key.mac.Open(slot.Sealed)
	if err != nil {
		return err
	}
	if h.Volume != f.v.cfg.VolumeID {
		return ErrOtherVolume
	}
	if h.File != f.key.id {
		return ErrSwappedKey
	}
	plain, err := f.v.layout.PlainSize(size)
	sealed := h.Flags&crypto.FlagSealed != 0
	switch {
	case sealed && f.anySize && h.Size <= MaxSize:
		plain = int64(h.Size)
	case err != nil && sealed:
		return fmt.Errorf("%w: %w", ErrSizeMismatch, err)
	case sealed && uint64(plain) != h.Size:
		return fmt.Errorf("%w: sealed with %d bytes, %d on disk", ErrSizeMismatch, h.Size, plain)
	}
	f.header.adopt(h, slot, index)
	f.extents.eof = plain
	if !sealed {
		f.torn.from.Store(blocksFor(min(int64(h.Size), MaxSize)))
	}
	// An unsealed file was being written when something died, so nothing is known about its holes.
	f.extents.holesUnknown = !sealed || h.Flags&crypto.FlagSparse != 0
	return nil
}

// Size returns the plaintext size in bytes.
func (f *File) Size() int64 { return f.extents.size() }

// ID returns the file ID, for messages; it is zero for an empty file that never had a header.
func (f *File) ID() crypto.ID { return f.key.id }

// Uses reports whether the file's DEK is the one that w wraps.
func (f *File) Uses(w keyring.Wrapped) bool { return f.key.ready.Load() && f.key.leased() == w }

// KEKVersion returns the version of the key-encryption key that wrapped the file's DEK; 0 if there is none or it cannot be told.
func (f *File) KEKVersion() int {
	if !f.key.ready.Load() {
		return 0
	}
	return versionOf(f.key.leased())
}

// FD returns the backing descriptor, valid while the caller holds a reference.
func (f *File) FD() int { return int(f.fd.Load()) }

// Err returns why the key of this file may not be used any more, or nil.
func (f *File) Err() error { return f.key.check() }

// Sync makes what was written durable, without sealing. What has records in the journal is durable already; for all else it
// costs one sync of the backing file.
func (f *File) Sync(dataOnly bool) error {
	f.promised.Store(true)
	f.header.noteSynced()
	if err := f.v.journal.repair(); err != nil {
		return err
	}
	reach := f.reach()
	if vouch := f.mayVouch(); vouch || f.extents.needsSync(dataOnly) {
		isNew := f.v.newFiles.remove(f)
		was := f.extents.takeUnsynced(dataOnly)
		if err := f.syncBacking(dataOnly, vouch); err != nil {
			f.extents.restoreUnsynced(was)
			if isNew {
				f.v.newFiles.add(f)
			}
			return err
		}
	}
	f.noteDurable(reach)
	return nil
}

// HoldTimes keeps sealing from restoring times that the caller is about to change; the result lets go.
func (f *File) HoldTimes() (release func()) {
	f.times.Lock()
	return f.times.Unlock
}

func (f *File) target() backing.Target { return backing.Target{FD: f.FD()} }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// TakeFirstWrite reports whether this is the first change of content since the File was opened or ExpectFirstWrite called.
func (f *File) TakeFirstWrite() bool { return !f.changed.Load() && !f.changed.Swap(true) }

// ExpectFirstWrite makes the next TakeFirstWrite report true.
func (f *File) ExpectFirstWrite() { f.changed.Store(false) }
