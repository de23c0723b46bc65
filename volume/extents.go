package volume

import (
	"math"
	"sync"
	"sync/atomic"

	"github.com/envfs/envfs/crypto"
)

// extents knows how far a File reaches, who is working on which of its blocks, and where its holes are.
//
// Readers share blocks, writers own them; requests that do not touch the same blocks run side by side. A write that makes
// the file longer announces its end before it starts (eof), so that every other write knows whether its own last block is
// the last one of the file. Were it to start behind the end, its span reaches back to the old last block, which must be
// made whole first; so a block is never stored under a wrong idea of its length. And one that has a last block to make whole
// is waited for by those behind it, because it may fail.
type extents struct {
	mu    sync.Mutex
	freed sync.Cond // a span was given back; L is &mu

	spans        []*span // in use; guarded by mu
	eof          int64   // plaintext size, growing writes under way included; guarded by mu
	holes        holeSet // blocks known to be holes; guarded by mu
	holesUnknown bool    // there may be holes that holes does not list; guarded by mu

	dirty atomic.Bool // data was written in place since the last sync
	// unprotected: some of it has no record in the journal either. attributes: others than times were changed since the last
	// sync. Where neither holds, a sync has nothing to do.
	unprotected, attributes atomic.Bool
}

// span is a range of blocks [lo, hi) in use by one request.
type span struct {
	lo, hi    int64
	exclusive bool
	oldEOF    int64 // eof when the span was granted
	newEOF    int64 // eof as this request leaves it
}

// wholeFile is an upper bound of block indices.
const wholeFile = math.MaxInt64

func (e *extents) init() { e.freed.L = &e.mu }

func (e *extents) size() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.eof
}

// lockRead shares the blocks of [off, off+n) and returns the span, whose oldEOF is the size to read up to.
func (e *extents) lockRead(off, n int64) *span {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &span{lo: off / crypto.BlockSize, hi: blocksFor(off + n)}
	e.wait(s)
	s.oldEOF, s.newEOF = e.eof, e.eof
	return s
}

// lockWrite owns the blocks of [off, off+n), and those from the old last block on if the write starts behind it, and
// announces the new size.
func (e *extents) lockWrite(off, n int64) *span {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &span{exclusive: true, hi: blocksFor(off + n)}
	for {
		s.lo = off / crypto.BlockSize
		if off > e.eof {
			s.lo = min(s.lo, e.eof/crypto.BlockSize)
		}
		if !e.conflicts(s) && !e.unsettled(off+n) {
			break
		}
		e.freed.Wait() // eof may have moved meanwhile, so the range is computed anew
	}
	s.oldEOF, s.newEOF = e.eof, max(e.eof, off+n)
	e.eof = s.newEOF
	e.spans = append(e.spans, s)
	return s
}

// lockAll owns the whole file.
func (e *extents) lockAll() *span {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := &span{exclusive: true, hi: wholeFile}
	e.wait(s)
	s.oldEOF, s.newEOF = e.eof, e.eof
	return s
}

// wait blocks until s can be granted and grants it. The caller holds mu.
func (e *extents) wait(s *span) {
	for e.conflicts(s) {
		e.freed.Wait()
	}
	e.spans = append(e.spans, s)
}

func (e *extents) conflicts(s *span) bool {
	for _, o := range e.spans {
		if s.lo < o.hi && o.lo < s.hi && (s.exclusive || o.exclusive) {
			return true
		}
	}
	return false
}

// unsettled reports whether a write that is to make the file longer, to end, has to wait for one under way that stores a last
// block anew at a greater length: if that fails, the block must go back to its old length, with nothing behind it.
// The caller holds mu.
func (e *extents) unsettled(end int64) bool {
	for _, o := range e.spans {
		if end > o.newEOF && o.newEOF > o.oldEOF && o.oldEOF%crypto.BlockSize != 0 {
			return true
		}
	}
	return false
}

// unlock gives s back.
func (e *extents) unlock(s *span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.release(s)
}

// release gives s back. The caller holds mu.
func (e *extents) release(s *span) {
	for i, o := range e.spans {
		if o == s {
			last := len(e.spans) - 1
			e.spans[i] = e.spans[last]
			e.spans[last] = nil
			e.spans = e.spans[:last]
			break
		}
	}
	e.freed.Broadcast()
}

// wrote gives back the span of a write of [off, off+n) that succeeded and notes what it did to the holes.
func (e *extents) wrote(s *span, off, n int64) {
	e.dirty.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := blocksFor(s.oldEOF); off/crypto.BlockSize > old {
		e.holes.add(old, off/crypto.BlockSize)
	}
	e.holes.remove(off/crypto.BlockSize, blocksFor(off+n))
	e.release(s)
}

// failedWrite brings a backing file into order after a write that failed. Its methods are called with the lock held.
type failedWrite interface {
	cutBack(size int64) // bring the file back to the size that it had before
	pad()               // others have built on the new size: make the block whole in which the file ended before
}

// failed gives back the span of a write w of [off, off+n) that failed. If nobody has built on the size that it announced, the
// file becomes as long as it was; otherwise what was not written has become a hole.
func (e *extents) failed(s *span, off, n int64, w failedWrite) {
	e.dirty.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case s.newEOF == s.oldEOF: // an overwrite: nothing has moved
	case e.eof == s.newEOF:
		w.cutBack(s.oldEOF)
		e.eof = s.oldEOF
	default:
		w.pad()
		e.holes.add(blocksFor(s.oldEOF), blocksFor(off+n))
	}
	e.release(s)
}

// punched notes that the blocks [lo, hi), which the caller owns, may be holes from now on.
func (e *extents) punched(lo, hi int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.holes.add(lo, hi)
}

// resized gives back the span of lockAll after the size was set to size; blocks in [holeLo, holeHi) became holes.
func (e *extents) resized(s *span, size, holeLo, holeHi int64) {
	e.dirty.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.eof = size
	e.holes.remove(blocksFor(size), wholeFile)
	if holeLo < holeHi {
		e.holes.add(holeLo, holeHi)
	}
	if size == 0 {
		e.holes, e.holesUnknown = holeSet{}, false
	}
	e.release(s)
}

// sealFacts returns what a seal vouches for: the size, and whether blocks of zeros are holes rather than damage.
func (e *extents) sealFacts() (size int64, sparse bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.eof, e.holesUnknown || !e.holes.empty()
}

// written returns how far the file reaches without the writes under way that make it longer.
func (e *extents) written() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	size := e.eof
	for _, s := range e.spans {
		if s.newEOF > s.oldEOF {
			size = min(size, s.oldEOF)
		}
	}
	return size
}

// zeroPolicy says what a block of zeros on disk means: a hole only where the file may have holes.
func (e *extents) zeroPolicy() crypto.HolePolicy {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.holesUnknown || !e.holes.empty() {
		return crypto.HolesAllowed
	}
	return crypto.HolesForbidden
}

// unsynced is what a sync of the backing file makes durable.
type unsynced struct{ dirty, unprotected, attributes bool }

// needsSync reports whether there is anything that only a sync of the backing file makes durable.
func (e *extents) needsSync(dataOnly bool) bool {
	return e.unprotected.Load() || !dataOnly && e.attributes.Load()
}

// takeUnsynced is called before a sync: what is written from now on needs another one.
func (e *extents) takeUnsynced(dataOnly bool) unsynced {
	u := unsynced{dirty: e.dirty.Swap(false), unprotected: e.unprotected.Swap(false)}
	if !dataOnly {
		u.attributes = e.attributes.Swap(false)
	}
	return u
}

// restoreUnsynced is called after a sync that failed.
func (e *extents) restoreUnsynced(u unsynced) {
	if u.dirty {
		e.dirty.Store(true)
	}
	if u.unprotected {
		e.unprotected.Store(true)
	}
	if u.attributes {
		e.attributes.Store(true)
	}
}

// blocksFor returns the number of blocks that hold n bytes.
func blocksFor(n int64) int64 { return (n + crypto.BlockSize - 1) / crypto.BlockSize }
