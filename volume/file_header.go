package volume

import (
	"sync"
	"sync/atomic"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// headerState is what the header on disk says.
type headerState int32

const (
	headerNone     headerState = iota // the backing file is empty: no header
	headerSealed                      // size and holes are vouched for
	headerUnsealed                    // data may have changed since the last seal
)

// fileHeader is the header side of a File. Slots are written in turns, each with a higher sequence number, so that the
// slot written before stays whole whatever happens to the one being written.
//
// A rewrap may replace the wrapped key beside a mount. So each write holds the lock of rewrap_lock.go, and follows what the
// header says by then: sequence number, place and wrapped key are those on disk, never a memory of them.
type fileHeader struct {
	state atomic.Int32 // a headerState; changed with mu held, read without it on the way of every write
	// vouched is the size in the header on disk: sealed, or so many bytes from the beginning are durable. Changed with mu held.
	vouched atomic.Int64

	mu       sync.Mutex
	sequence uint64 // of the newest slot on disk; guarded by mu
	slot     int    // index of the newest slot; guarded by mu
	// wrapped and sealed are those of the newest slot; before there is one, "" and zeros. Guarded by mu.
	wrapped keyring.Wrapped
	sealed  crypto.SealedPart
	// durable bytes from the beginning are; cuts counts how often the file was made shorter. Guarded by mu.
	durable int64
	cuts    int

	// fresh: the file was created by this mount and no application has been told that its creation is durable, so the
	// first header needs no sync before the data. epoch is the value of Volume.creations at that moment.
	// Set before the File is shared; fresh is cleared with mu held.
	fresh bool
	epoch int64
	// hollow: the backing file had a size but no header, and all zeros, when it was opened. Set before the File is shared.
	hollow bool
}

func (h *fileHeader) get() headerState { return headerState(h.state.Load()) }

func (h *fileHeader) adopt(hdr crypto.Header, slot crypto.Slot, index int) {
	h.sequence, h.slot = slot.Sequence, index
	h.wrapped, h.sealed = keyring.Wrapped(slot.Wrapped), slot.Sealed
	h.vouched.Store(min(int64(hdr.Size), MaxSize))
	state := headerUnsealed
	if hdr.Flags&crypto.FlagSealed != 0 {
		state = headerSealed
	}
	h.state.Store(int32(state))
}

// noteSynced records that the application asks for durability from here on.
func (h *fileHeader) noteSynced() {
	if h.get() != headerNone {
		return
	}
	h.mu.Lock()
	h.fresh = false
	h.mu.Unlock()
}

// unseal makes the header on disk say that data is changing, before it does. A seal that vouches for the old size must be
// durably gone before new data can reach the disk, or a power cut would leave a file that looks tampered with: hence the
// sync, once in the time that a file is open for writing. A fresh file has no seal to take back.
func (f *File) unseal() error { return f.unsealBelow(MaxSize) }

// unsealBelow is unseal before the file is cut to limit bytes, of which the header must no longer vouch for more.
func (f *File) unsealBelow(limit int64) error {
	h := &f.header
	fits := func() bool { return h.get() == headerUnsealed && h.vouched.Load() <= limit }
	if limit == MaxSize && fits() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if limit < MaxSize {
		h.durable = min(h.durable, limit)
		h.cuts++
	}
	if fits() {
		return nil
	}
	image := make([]byte, f.v.layout.HeaderSize())
	if h.get() == headerNone {
		return f.writeFirst(image)
	}
	if err := f.lockHeader(); err != nil {
		return err
	}
	defer f.unlockHeader()
	return f.vouch(image, min(h.vouched.Load(), limit), true)
}

// vouch writes a header that says that the file is not sealed and that its first size bytes are durable, and syncs it together with
// all else. image is room for a header. The caller holds header.mu and the lock of the header.
func (f *File) vouch(image []byte, size int64, dataOnly bool) error {
	if err := f.follow(image); err != nil {
		return err
	}
	next, err := f.nextSlot(image, 0, size)
	if err != nil {
		return err
	}
	if _, err := f.v.store.WriteAt(f.FD(), image[next.from:next.to], int64(next.from)); err != nil {
		return err
	}
	if err := f.v.store.Sync(f.FD(), dataOnly); err != nil {
		return err
	}
	f.header.advance(headerUnsealed, next)
	f.header.vouched.Store(size)
	return nil
}

// writeFirst writes the header of an empty file. The other slot is written as zeros, so that the header is whole. The caller
// holds header.mu.
func (f *File) writeFirst(image []byte) error {
	h := &f.header
	next, err := f.nextSlot(image, 0, 0)
	if err != nil {
		return err
	}
	if _, err := f.v.store.WriteAt(f.FD(), image, 0); err != nil {
		return f.headerFailed(err)
	}
	if !f.headerMayWait() {
		if err := f.v.store.Sync(f.FD(), true); err != nil {
			return err
		}
	}
	h.advance(headerUnsealed, next)
	h.vouched.Store(0)
	return nil
}

// follow reads the header again, into image, and takes over what a rewrap has made of it. A slot that was not made of our
// last one is somebody's tampering: its wrapped key is not taken, but its sequence number is, so that the next slot counts.
// One that we could not read, or that is older, changes nothing. The caller holds header.mu and the lock of the header.
func (f *File) follow(image []byte) error {
	h := &f.header
	n, err := f.v.store.ReadAt(f.FD(), image, 0)
	if err != nil {
		return err
	}
	slot, index, err := crypto.NewestSlot(image[:n], int(f.v.layout.SlotSize))
	if err != nil || slot.Sequence <= h.sequence {
		return nil
	}
	// What is written next goes over the slot that this one has replaced, so this one must be durable.
	if err := f.v.store.Sync(f.FD(), true); err != nil {
		return err
	}
	if slot.Sealed == h.sealed {
		h.wrapped = keyring.Wrapped(slot.Wrapped)
	}
	h.sequence, h.slot = slot.Sequence, index
	return nil
}

// headerFailed takes back a first header that was written only in part, so that the file is empty as before.
func (f *File) headerFailed(err error) error {
	if f.header.get() == headerNone {
		if terr := f.v.store.Truncate(f.FD(), 0); terr != nil {
			f.v.log.Warn("cannot take back a header that was written in part", "file_id", f.key.id, "error", terr)
		}
	}
	return err
}

// nextSlot is a slot that is about to be written: its place in the header, and what is in it.
type nextSlot struct {
	from, to int
	wrapped  keyring.Wrapped
	sealed   crypto.SealedPart
}

// nextSlot encodes the slot that follows the newest one into its place in image, which is as long as the whole header.
// The caller holds header.mu.
func (f *File) nextSlot(image []byte, flags crypto.Flags, size int64) (nextSlot, error) {
	h := &f.header
	next := nextSlot{wrapped: h.wrapped}
	if next.wrapped == "" {
		next.wrapped = f.key.wrapped
	}
	next.sealed = f.key.mac.Seal(crypto.Header{
		Suite: crypto.SuiteXAES256GCM, BlockLog2: crypto.BlockLog2, Flags: flags,
		Volume: f.v.cfg.VolumeID, File: f.key.id, Size: uint64(size),
	})
	n := int(f.v.layout.SlotSize)
	next.from = h.nextIndex() * n
	next.to = next.from + n
	return next, crypto.EncodeSlot(image[next.from:next.to], crypto.Slot{
		Sequence: h.sequence + 1, Wrapped: string(next.wrapped), Sealed: next.sealed,
	})
}

// nextIndex is where the next slot goes: slot 0 for a file's first, then the one that is not the newest.
func (h *fileHeader) nextIndex() int {
	if h.sequence == 0 {
		return 0
	}
	return 1 - h.slot
}

// advance records that the slot made by nextSlot is on its way to disk. The caller holds mu.
func (h *fileHeader) advance(state headerState, next nextSlot) {
	h.slot = h.nextIndex()
	h.sequence++
	h.wrapped, h.sealed = next.wrapped, next.sealed
	h.state.Store(int32(state))
}

// seal writes the header that vouches for the size, and gives the file back the times it had, because no application has
// changed it. The data must be durable already. The caller makes sure that nobody changes the file.
func (f *File) seal() error {
	h := &f.header
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.get() != headerUnsealed {
		return nil
	}
	size, sparse := f.extents.sealFacts()
	flags := crypto.FlagSealed
	if sparse {
		flags |= crypto.FlagSparse
	}
	image := make([]byte, f.v.layout.HeaderSize())
	if err := f.lockHeader(); err != nil {
		return err
	}
	defer f.unlockHeader() // closing the file would not do: the journal may have a descriptor for it
	defer f.HoldTimes()()
	var before, after unix.Stat_t
	if err := f.v.store.Stat(f.FD(), &before); err != nil {
		return err
	}
	if err := f.cutTail(&before, size); err != nil {
		return err
	}
	if err := f.checkTorn(size); err != nil {
		return err
	}
	if err := f.follow(image); err != nil {
		return err
	}
	next, err := f.nextSlot(image, flags, size)
	if err != nil {
		return err
	}
	if _, err := f.v.store.WriteAt(f.FD(), image[next.from:next.to], int64(next.from)); err != nil {
		return err
	}
	h.advance(headerSealed, next)
	h.vouched.Store(size)
	f.torn.from.Store(wholeFile)
	if err := f.v.store.SetTimes(f.target(), before.Atim, before.Mtim); err != nil {
		return err
	}
	if err := f.v.store.Stat(f.FD(), &after); err != nil {
		return err
	}
	f.events.Sealed(before.Ctim, after.Ctim)
	return nil
}

// cutTail removes what a crash has left of a block that was being appended, too short to be one, behind a file of size bytes
// (format.md, 5.3). In an unsealed file it is ignored, in a sealed one it would be damage, so it must durably be gone before
// the seal.
func (f *File) cutTail(st *unix.Stat_t, size int64) error {
	end := f.v.layout.CipherSize(size)
	if tail := st.Size - end; tail <= 0 || tail > crypto.BlockOverhead || size%crypto.BlockSize != 0 {
		return nil
	}
	if err := f.v.store.Truncate(f.FD(), end); err != nil {
		return err
	}
	return f.v.store.Sync(f.FD(), true)
}
