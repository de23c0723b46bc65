package volume

import (
	"errors"
	"fmt"
	"time"

	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

// MaxSize is the largest plaintext size: what remains of the largest file offset after header and block overhead.
const MaxSize = (1<<63 - 1) / crypto.CipherBlockSize * crypto.BlockSize / 2

// Truncate sets the plaintext size. A larger size adds a hole.
func (f *File) Truncate(size int64) error {
	if size < 0 || size > MaxSize {
		return fmt.Errorf("size %d: %w", size, unix.EFBIG)
	}
	if err := f.mayChange(); err != nil {
		return err
	}
	s := f.extents.lockAll()
	if err := f.resize(size, s.oldEOF); err != nil {
		f.extents.unlock(s)
		if begun(err) {
			f.disown()
		}
		return err
	}
	f.extents.resized(s, size, blocksFor(s.oldEOF), blocksFor(size))
	return nil
}

func (f *File) resize(size, eof int64) error {
	switch {
	case size == eof: // nothing moves but the times
		return f.touch()
	case size == 0:
		return f.empty()
	}
	if size > eof {
		if err := f.unseal(); err != nil {
			return err
		}
		return f.extend(size, eof)
	}
	if err := f.unsealBelow(size); err != nil {
		return err
	}
	return f.shrink(size, eof)
}

// touch makes the modification time the present.
func (f *File) touch() error {
	return f.v.store.SetTimes(f.target(), unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW})
}

// empty cuts the backing file to nothing, header included: an empty file needs none, and no state in between could be
// mistaken for anything but the old file or the empty one.
func (f *File) empty() error {
	if err := f.v.journal.retire(f); err != nil {
		return &unrecorded{err}
	}
	h := &f.header
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.get() != headerNone {
		if err := f.lockHeader(); err != nil {
			return err
		}
		defer f.unlockHeader()
	}
	if err := f.v.store.Truncate(f.FD(), 0); err != nil {
		return err
	}
	h.state.Store(int32(headerNone))
	h.vouched.Store(0)
	h.durable = 0
	h.cuts++
	f.torn.from.Store(wholeFile)
	f.extents.unprotected.Store(true)
	// What comes now is a new content, of which nobody was promised anything yet.
	f.born = time.Now()
	f.promised.Store(false)
	return nil
}

// extend adds a hole, after a record of the old last block, which becomes longer.
func (f *File) extend(size, eof int64) error {
	if f.v.journal.touches(f.key.id, blocksFor(eof), wholeFile) {
		if err := f.v.journal.retire(f); err != nil {
			return &unrecorded{err}
		}
	}
	last, err := f.keepLast(eof)
	if err != nil {
		return err
	}
	defer f.dropLast(last)
	if err = f.growLast(last, eof, size); err == nil {
		err = f.v.store.Truncate(f.FD(), f.v.layout.CipherSize(size))
	}
	if err != nil && begun(err) {
		f.restoreLast(last, eof)
	}
	f.extents.unprotected.Store(true)
	return err
}

// shrink stores the new last block at its new length and cuts the file behind it. If either fails, the block is stored again
// as it was, because a file whose last block is shorter than its size says cannot be read there.
func (f *File) shrink(size, eof int64) error {
	keep := size % crypto.BlockSize
	if keep == 0 {
		return f.cut(nil, size)
	}
	block := size / crypto.BlockSize
	start := block * crypto.BlockSize
	scratch := f.v.buffers.block()
	defer f.v.buffers.putBlock(scratch)
	content := (*scratch)[:min(crypto.BlockSize, eof-start)]
	if _, err := f.read(content, start, eof); err != nil {
		return err
	}
	err := f.cut(content[:keep], size)
	if err != nil && begun(err) {
		if rerr := f.storeBlock(content, block); rerr != nil {
			f.v.log.Error("cannot restore a block after a failed truncation", "file_id", f.key.id, "block", block, "error", rerr)
		}
	}
	return err
}

// Allocate reserves space for [off, off+n), as fallocate(2) does with mode 0, or with FALLOC_FL_KEEP_SIZE if keepSize.
func (f *File) Allocate(off, n int64, keepSize bool) error {
	if n <= 0 || off < 0 || off > MaxSize-n {
		return unix.EFBIG
	}
	if err := f.mayChange(); err != nil {
		return err
	}
	s := f.extents.lockAll()
	end := off + n
	grows := end > s.oldEOF && !keepSize
	if err := f.allocate(s, off, end, grows); err != nil {
		f.extents.unlock(s)
		return err
	}
	if !grows {
		f.extents.unlock(s)
		return nil
	}
	f.extents.resized(s, end, blocksFor(s.oldEOF), blocksFor(end))
	return nil
}

func (f *File) allocate(s *span, off, end int64, grows bool) error {
	if grows || f.header.get() == headerNone {
		if err := f.unseal(); err != nil {
			return err
		}
	}
	from := f.v.layout.BlockOffset(off / crypto.BlockSize)
	to := f.v.layout.CipherSize(end)
	if err := f.v.store.Fallocate(f.FD(), unix.FALLOC_FL_KEEP_SIZE, from, to-from); err != nil {
		return err
	}
	if !grows {
		return nil
	}
	return f.extend(end, s.oldEOF)
}

// ZeroRange makes [off, off+n) read as zeros and gives whole blocks back to the disk, as fallocate(2) does with
// FALLOC_FL_PUNCH_HOLE (keepSize) and FALLOC_FL_ZERO_RANGE.
func (f *File) ZeroRange(off, n int64, keepSize bool) error {
	if n <= 0 || off < 0 || off > MaxSize-n {
		return unix.EFBIG
	}
	if err := f.mayChange(); err != nil {
		return err
	}
	s := f.extents.lockAll()
	size := s.oldEOF
	err := f.zero(min(off, size), min(off+n, size), size)
	if err == nil && off+n > size && !keepSize {
		if err = f.resize(off+n, size); err == nil {
			size = off + n
		}
	}
	f.extents.unprotected.Store(true)
	f.extents.resized(s, size, blocksFor(s.oldEOF), blocksFor(size))
	if err != nil {
		f.disown()
	}
	return err
}

// zero makes [off, end) of a file of eof bytes, which reaches no further, read as zeros.
func (f *File) zero(off, end, eof int64) error {
	if off == end {
		return f.touch()
	}
	if err := f.unseal(); err != nil {
		return err
	}
	lo, hi := blocksFor(off), end/crypto.BlockSize
	if end == eof {
		hi = blocksFor(end) // the last block is covered to its end
	}
	if lo < hi {
		// Noted first: if anything fails from here on, blocks of zeros must not look like damage.
		f.extents.punched(lo, hi)
		if err := f.makeHole(blockRange{lo, hi}, eof); err != nil {
			return err
		}
	}
	return f.zeroEdges(off, end, eof, lo, hi)
}

// punch gives the blocks of h back to the disk, in a backing file that reaches to size bytes on disk.
func (v *Volume) punch(fd int, h blockRange, size int64) error {
	from, to := v.layout.BlockOffset(h.lo), min(v.layout.BlockOffset(h.hi), size)
	if from >= to {
		return nil
	}
	return v.store.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// zeroEdges writes zeros into the blocks at either end of [off, end) that are covered only in part.
func (f *File) zeroEdges(off, end, size, lo, hi int64) error {
	var errs []error
	if head := min(end, lo*crypto.BlockSize); off < head {
		errs = append(errs, f.zeroWithin(off, head, size))
	}
	if tail := hi * crypto.BlockSize; hi >= lo && tail < end {
		errs = append(errs, f.zeroWithin(tail, end, size))
	}
	return errors.Join(errs...)
}

// zeroWithin writes zeros to [from, to), which lies in one block of a file of size bytes. A hole stays one.
func (f *File) zeroWithin(from, to, size int64) error {
	block := from / crypto.BlockSize
	start := block * crypto.BlockSize
	length := min(crypto.BlockSize, size-start)
	scratch := f.v.buffers.block()
	defer f.v.buffers.putBlock(scratch)
	content := (*scratch)[:length]
	if _, err := f.read(content, start, size); err != nil {
		return err
	}
	if allZero(content[from-start : min(to-start, length)]) {
		return f.touch()
	}
	clear(content[from-start : min(to-start, length)])
	return f.rewriteBlock(content, block, size)
}
