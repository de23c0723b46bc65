package volume

import (
	"errors"
	"time"

	"github.com/envfs/envfs/crypto"
)

const (
	// smallChange is the number of blocks up to which a change that needs a record at one of its ends is recorded whole, so
	// that an append across the edge of a block survives in one piece.
	smallChange = 16
	// writebackAge is after how long a new file that nobody has synced is treated as if it had been: by then the kernel has
	// written back what was in it (dirty_expire_centisecs), and its owner counts on that.
	writebackAge = 30 * time.Second
)

// change is a run of sealed blocks, from block first on, that is about to be written in place into a file of old bytes.
// Of the plaintext, an application changes [lo, hi).
type change struct {
	sealed []byte
	first  int64
	old    int64
	lo, hi int64
}

func (c *change) end() int64 { return c.first + blocksFor(int64(crypto.OpenedLen(len(c.sealed)))) }

// losesBytes reports whether a torn write of a block would cost bytes that the application does not write: all but the
// blocks behind the old end, and whole ones that are overwritten as a whole. The last block, if it is not whole, always does,
// because the kernel's page cache writes back the old part of it together with the new one.
func (c *change) losesBytes(block int64) bool {
	start := block * crypto.BlockSize
	old := min(crypto.BlockSize, c.old-start)
	return old > 0 && (old < crypto.BlockSize || c.lo > start || c.hi < start+crypto.BlockSize)
}

// ranges are the blocks of a change that are recorded before they are written in place.
type ranges struct {
	of [2]blockRange
	n  int
}

func (r *ranges) add(lo, hi int64) {
	if lo < hi {
		r.of[r.n] = blockRange{lo, hi}
		r.n++
	}
}

// recorded says which blocks of c need a record.
func (f *File) recorded(c *change) (r ranges) {
	if !f.precious() {
		return r
	}
	first, end := c.first, c.end()
	if f.v.journal.safety == SafeFull {
		overwritten := min(end, blocksFor(c.old))
		if overwritten > first && end-first <= smallChange {
			overwritten = end
		}
		r.add(first, overwritten)
		return r
	}
	last := min(end-1, c.old/crypto.BlockSize) // the one block behind the first that may lose bytes
	head, tail := c.losesBytes(first), last > first && c.losesBytes(last)
	switch {
	case (head || tail) && end-first <= smallChange:
		r.add(first, end)
	default:
		if head {
			r.add(first, first+1)
		}
		if tail {
			r.add(last, last+1)
		}
	}
	return r
}

// prepareWrite makes sure that there is a journal if a write of [off, off+n) may need a record. Once such a write has made the
// file longer, others build on that, and it had better not fail.
func (f *File) prepareWrite(off, n int64) error {
	size := f.extents.size()
	inPart := off%crypto.BlockSize != 0 || (off+n)%crypto.BlockSize != 0
	if !inPart && (size%crypto.BlockSize == 0 || off+n < size) || off >= size && size%crypto.BlockSize == 0 || !f.precious() {
		return nil
	}
	return f.v.journal.prepare()
}

// precious reports whether a crash must not cost what the file holds. A file that was made lately and that nobody has synced,
// or that has no name, may be lost as a whole.
func (f *File) precious() bool {
	if f.unlinked.Load() {
		return false
	}
	if !f.promised.Load() {
		if time.Since(f.born) < writebackAge {
			return false
		}
		f.promised.Store(true)
	}
	return true
}

// unrecorded is the error of a change that could not be recorded, so that nothing was written in place.
type unrecorded struct{ err error }

func (e *unrecorded) Error() string { return e.err.Error() }

func (e *unrecorded) Unwrap() error { return e.err }

// begun reports whether a change with this result may have changed something in place.
func begun(err error) bool {
	if err == nil {
		return true // said here, because what follows allocates
	}
	var u *unrecorded
	return !errors.As(err, &u)
}

// put writes a change in place, with records of the blocks that need them before. The caller owns the blocks.
func (f *File) put(c change) error {
	r := f.recorded(&c)
	if err := f.coverTouched(&c, &r); err != nil {
		return &unrecorded{err}
	}
	off := f.v.layout.BlockOffset(c.first)
	if r.n == 0 {
		return f.putUncovered(c.sealed, off)
	}
	var list [2]entry
	for i, blocks := range r.of[:r.n] {
		from := (blocks.lo - c.first) * crypto.CipherBlockSize
		to := min((blocks.hi-c.first)*crypto.CipherBlockSize, int64(len(c.sealed)))
		list[i] = entry{kind: recordWrite, first: blocks.lo, sealed: c.sealed[from:to]}
	}
	use, err := f.v.journal.start(f, list[:r.n])
	if err != nil {
		return &unrecorded{err}
	}
	defer f.v.journal.finish(use)
	if r.n == 1 && r.of[0] == (blockRange{c.first, c.end()}) {
		return f.store(c.sealed, off)
	}
	return f.putUncovered(c.sealed, off)
}

// putUncovered writes sealed blocks in place, not all of which have a record.
func (f *File) putUncovered(sealed []byte, off int64) error {
	err := f.store(sealed, off)
	f.extents.unprotected.Store(true) // after the write: a sync that has just begun must not take it for done
	return err
}

// coverTouched keeps the rule that a block with a record changes only under a newer one: a small change gets a record then,
// and before a large one the file is retired.
func (f *File) coverTouched(c *change, r *ranges) error {
	end := c.end()
	touched := false
	at := c.first
	for _, blocks := range r.of[:r.n] {
		touched = touched || f.v.journal.touches(f.key.id, at, blocks.lo)
		at = blocks.hi
	}
	if !touched && !f.v.journal.touches(f.key.id, at, end) {
		return nil
	}
	if end-c.first <= smallChange {
		*r = ranges{}
		r.add(c.first, end)
		return nil
	}
	return f.v.journal.retire(f)
}

// rewriteBlock seals content as the given block of a file of old bytes and writes it in place, under a record if need be. Of
// its plaintext nothing is counted as overwritten.
func (f *File) rewriteBlock(content []byte, block, old int64) error {
	buf := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(buf)
	sealed := (*buf)[:crypto.SealedLen(len(content))]
	f.key.content.SealBlocks(sealed, content, uint64(block))
	return f.put(change{sealed: sealed, first: block, old: old})
}

// cut makes the file end at size, in a block whose new content is given, or at the edge of a block if there is none. The
// caller owns the whole file.
func (f *File) cut(content []byte, size int64) error {
	buf := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(buf)
	sealed := (*buf)[:crypto.SealedLen(len(content))]
	block := size / crypto.BlockSize
	f.key.content.SealBlocks(sealed, content, uint64(block))
	if (len(content) > 0 && f.precious()) || f.v.journal.touches(f.key.id, block, wholeFile) {
		use, err := f.v.journal.start(f, []entry{{kind: recordShrink, first: block, sealed: sealed}})
		if err != nil {
			return &unrecorded{err}
		}
		defer f.v.journal.finish(use)
	} else {
		defer f.extents.unprotected.Store(true)
	}
	if len(content) > 0 {
		if err := f.store(sealed, f.v.layout.BlockOffset(block)); err != nil {
			return err
		}
	}
	return f.v.store.Truncate(f.FD(), f.v.layout.CipherSize(size))
}

// makeHole makes blocks of a file of size bytes holes. A block of which only a part was given back could not be read, so that
// is recorded as well.
func (f *File) makeHole(h blockRange, size int64) error {
	if f.precious() || f.v.journal.touches(f.key.id, h.lo, h.hi) {
		use, err := f.v.journal.start(f, []entry{{kind: recordHole, first: h.lo, hole: h.hi - h.lo}})
		if err != nil {
			return &unrecorded{err}
		}
		defer f.v.journal.finish(use)
	}
	return f.v.punch(f.FD(), h, f.v.layout.CipherSize(size))
}

// disown is called after a change that has failed: what stands in place counts, not what was recorded of the change.
func (f *File) disown() {
	f.extents.unprotected.Store(true)
	if err := f.v.journal.retire(f); err != nil {
		f.v.log.Error("cannot take back the record of a write that failed; a crash may bring it back", "file_id", f.key.id, "error", err)
	}
}

// NoteAttributes must be called after attributes or names of the file were changed: the next Sync has to make them durable.
func (f *File) NoteAttributes() { f.extents.attributes.Store(true) }
