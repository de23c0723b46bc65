package volume

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
)

// maxBadRuns bounds how many runs of bad blocks of one file are told apart.
const maxBadRuns = 1000

// badRun is a run of neighbouring blocks that are bad in the same way.
type badRun struct {
	lo, hi int64 // [lo, hi)
	reason string
	torn   bool // never synced, so that they read as zeros
}

// badBlocks are the blocks of a file that cannot be read. It is safe for concurrent use; a nil one has none.
type badBlocks struct {
	mu   sync.Mutex
	runs []badRun // in order; guarded by mu
	more int64    // bad blocks that runs does not list; guarded by mu
}

func (b *badBlocks) none() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.runs) == 0 && b.more == 0
}

// damaged reports whether there are others than torn ones.
func (b *badBlocks) damaged() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.more > 0 || slices.ContainsFunc(b.runs, func(r badRun) bool { return !r.torn })
}

// add notes a block, joining it to its neighbours.
func (b *badBlocks) add(block int64, reason string, torn bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, _ := slices.BinarySearchFunc(b.runs, block, func(r badRun, block int64) int { return cmp.Compare(r.lo, block) })
	like := func(r badRun) bool { return r.reason == reason && r.torn == torn }
	before := i > 0 && b.runs[i-1].hi == block && like(b.runs[i-1])
	after := i < len(b.runs) && b.runs[i].lo == block+1 && like(b.runs[i])
	switch {
	case before && after:
		b.runs[i-1].hi = b.runs[i].hi
		b.runs = slices.Delete(b.runs, i, i+1)
	case before:
		b.runs[i-1].hi++
	case after:
		b.runs[i].lo--
	case len(b.runs) == maxBadRuns:
		b.more++
	default:
		b.runs = slices.Insert(b.runs, i, badRun{block, block + 1, reason, torn})
	}
}

// leaveOut takes over what another one does not list, so that it is not looked at again.
func (b *badBlocks) leaveOut(other *badBlocks) {
	other.mu.Lock()
	defer other.mu.Unlock()
	b.more = other.more // b is not shared yet
}

// String lists them all.
func (b *badBlocks) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprint(b.runs, b.more)
}

// each calls f with a finding for each run.
func (b *badBlocks) each(f func(Finding)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.runs {
		found := Finding{Class: ClassDamage, Kind: KindBlock, Block: &r.lo, Blocks: r.hi - r.lo, Reason: r.reason}
		if r.torn {
			found.Class, found.Kind = ClassNotice, KindTorn
			found.Reason += "; it was being written when the machine crashed, and reads as zeros"
		}
		f(found)
	}
	if b.more > 0 {
		f(Finding{Class: ClassDamage, Kind: KindBlock, Blocks: b.more, Reason: "more blocks that cannot be read"})
	}
}

// blockChoice says which blocks of a file are to be read: those which were bad before, or all of them.
type blockChoice struct {
	only *badBlocks // nil: all
}

func everyBlock() blockChoice { return blockChoice{} }

// ranges returns the chosen blocks of a file that has so many.
func (c blockChoice) ranges(count int64) []blockRange {
	if c.only == nil {
		return []blockRange{{0, count}}
	}
	c.only.mu.Lock()
	defer c.only.mu.Unlock()
	var chosen []blockRange
	for _, r := range c.only.runs {
		if r.lo < count {
			chosen = append(chosen, blockRange{r.lo, min(r.hi, count)})
		}
	}
	return chosen
}

// blockLook is one reading of the blocks of a file.
type blockLook struct {
	w      *verify
	f      *File
	eof    int64
	policy crypto.HolePolicy
	bad    *badBlocks
	done   atomic.Int64 // bytes read
	holes  atomic.Bool
	failed atomic.Pointer[error]
	chunks sync.WaitGroup
}

// blocks reads the chosen blocks of a file, in chunks, as many side by side as there is room for.
func (w *verify) blocks(f *File, which blockChoice, l *fileLook) error {
	b := &blockLook{w: w, f: f, eof: f.extents.eof, policy: f.extents.zeroPolicy(), bad: l.bad}
	if which.only != nil {
		l.bad.leaveOut(which.only)
	}
	for _, r := range which.ranges(blocksFor(b.eof)) {
		for lo := r.lo; lo < r.hi && b.failed.Load() == nil; {
			lo = b.skipHole(lo, r.hi)
			hi := min(lo+chunkBlocks, r.hi)
			if lo < hi && !b.start(lo, hi) {
				break
			}
			lo = hi
		}
	}
	b.chunks.Wait()
	l.holes, l.read = b.holes.Load(), b.done.Load()
	if err := b.failed.Load(); err != nil {
		return *err
	}
	return w.ctx.Err()
}

// start reads a chunk once there is room for one more reader. A file of one chunk needs no goroutine beside its own.
func (b *blockLook) start(lo, hi int64) bool {
	select {
	case b.w.readers <- struct{}{}:
	case <-b.w.ctx.Done():
		return false
	}
	if hi == blocksFor(b.eof) {
		b.read(lo, hi)
		return true
	}
	b.chunks.Go(func() { b.read(lo, hi) })
	return true
}

// skipHole returns the first block from lo on that has data on disk, where the file may have holes; hi if there is none.
func (b *blockLook) skipHole(lo, hi int64) int64 {
	if b.policy != crypto.HolesAllowed {
		return lo
	}
	at := b.f.v.layout.BlockOffset(lo)
	data, err := b.w.store.Seek(b.f.FD(), at, unix.SEEK_DATA)
	if err == unix.ENXIO {
		data, err = b.f.v.layout.BlockOffset(hi), nil
	}
	next := (data - b.f.v.layout.HeaderSize()) / crypto.CipherBlockSize
	if err != nil || next <= lo {
		return lo // also on file systems that cannot tell
	}
	b.holes.Store(true)
	return min(next, hi)
}

// read reads and verifies the blocks [lo, hi).
func (b *blockLook) read(lo, hi int64) {
	defer func() { <-b.w.readers }()
	err := b.f.key.check()
	if err == nil {
		err = b.w.ctx.Err()
	}
	if err == nil {
		err = b.chunk(lo, hi)
	}
	if err != nil {
		b.failed.CompareAndSwap(nil, &err)
	}
}

func (b *blockLook) chunk(lo, hi int64) error {
	buf := b.f.v.buffers.chunk()
	defer b.f.v.buffers.putChunk(buf)
	sealed := (*buf)[:b.f.sealedBetween(lo, hi, b.eof)]
	n, err := b.w.store.ReadAt(b.f.FD(), sealed, b.f.v.layout.BlockOffset(lo))
	switch {
	case errors.Is(err, unix.EIO) && hi-lo > 1: // a bad place of the disk: which block is it in?
		for block := lo; block < hi; block++ {
			if err := b.chunk(block, block+1); err != nil {
				return err
			}
		}
		return nil
	case errors.Is(err, unix.EIO):
		b.bad.add(lo, err.Error(), false)
		return nil
	case err != nil:
		return err
	}
	b.done.Add(int64(n))
	b.w.count.bytes.Add(int64(n))
	b.w.count.done.Add(int64(n))
	b.open(sealed[:n], lo, hi)
	return nil
}

// open decrypts the blocks [lo, hi), one by one, so that one that is bad hides no other.
func (b *blockLook) open(sealed []byte, lo, hi int64) {
	scratch := b.f.v.buffers.block()
	defer b.f.v.buffers.putBlock(scratch)
	for block := lo; block < hi; block++ {
		size := int(min(crypto.BlockSize, b.eof-block*crypto.BlockSize)) + crypto.BlockOverhead
		if len(sealed) < size {
			b.bad.add(block, ErrShortFile.Error(), false)
			sealed = nil
			continue
		}
		if _, err := b.f.key.content.OpenBlocks(*scratch, sealed[:size], uint64(block), b.policy); err != nil {
			b.bad.add(block, reasonOf(err), b.f.torn.at(block, err))
		} else if b.policy == crypto.HolesAllowed && allZero(sealed[:size]) {
			b.holes.Store(true)
		}
		sealed = sealed[size:]
	}
}
