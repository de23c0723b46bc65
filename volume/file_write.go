package volume

import (
	"errors"

	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

// WriteAt writes all of p at plaintext offset off, or nothing that a reader could mistake for data: on an error the file
// has the size that it had before, unless another write has built on it.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.mayChange(); err != nil {
		return 0, err
	}
	n := int64(len(p))
	if err := f.prepareWrite(off, n); err != nil {
		return 0, err
	}
	s := f.extents.lockWrite(off, n)
	w := writer{f: f, s: s, p: p, off: off}
	defer w.release()
	if err := w.write(); err != nil {
		f.extents.failed(s, off, n, &w)
		if w.begun {
			f.disown()
		}
		return 0, err
	}
	f.extents.wrote(s, off, n)
	return len(p), nil
}

// mayChange refuses changes to a file that is open for reading, or whose key is gone.
func (f *File) mayChange() error {
	if !f.Writable() {
		return ErrReadOnly
	}
	return f.key.check()
}

// writer is one WriteAt under way: p at off, with the blocks of s owned.
type writer struct {
	f   *File
	s   *span
	p   []byte
	off int64

	last  lastBlock // what the old last block holds now, if this write makes it longer
	begun bool      // something may have been written in place
}

func (w *writer) release() { w.f.dropLast(w.last) }

func (w *writer) write() error {
	if err := w.f.unseal(); err != nil {
		return err
	}
	if w.off > w.s.oldEOF {
		if err := w.padTail(); err != nil {
			return err
		}
	}
	for len(w.p) > 0 {
		n, err := w.chunk()
		if err != nil {
			return err
		}
		w.p, w.off = w.p[n:], w.off+int64(n)
	}
	return nil
}

// padTail makes the old last block whole, with zeros, when the write starts in a later block.
func (w *writer) padTail() (err error) {
	if w.s.oldEOF/crypto.BlockSize == w.off/crypto.BlockSize {
		return nil
	}
	if w.last, err = w.f.keepLast(w.s.oldEOF); err != nil {
		return err
	}
	if w.last.content == nil {
		return nil
	}
	err = w.f.growLast(w.last, w.s.oldEOF, w.off)
	w.begun = w.begun || begun(err)
	return err
}

// chunk writes the next blocks with one call below and returns how many bytes of p that took.
func (w *writer) chunk() (int, error) {
	first := w.off / crypto.BlockSize
	last := min(blocksFor(w.off+int64(len(w.p))), first+chunkBlocks)
	size := w.f.sealedBetween(first, last, w.s.newEOF)
	buf := w.f.v.buffers.chunk()
	defer w.f.v.buffers.putChunk(buf)
	sealed := (*buf)[:size]
	done := 0
	for block := first; block < last; {
		at := sealed[int(block-first)*crypto.CipherBlockSize:]
		skip := int((w.off + int64(done)) % crypto.BlockSize)
		var n int
		var err error
		if whole := (len(w.p) - done) / crypto.BlockSize; skip == 0 && whole > 0 {
			count := min(int64(whole), last-block)
			n = w.run(at, w.p[done:done+int(count)*crypto.BlockSize], block)
			block += count
		} else {
			n, err = w.edge(at, w.p[done:], block, skip)
			block++
		}
		if err != nil {
			return 0, err
		}
		done += n
	}
	err := w.f.put(change{sealed: sealed, first: first, old: w.s.oldEOF, lo: w.off, hi: w.off + int64(done)})
	w.begun = w.begun || begun(err)
	return done, err
}

// run seals whole blocks.
func (w *writer) run(dst, p []byte, block int64) int {
	w.keepTail(p, block)
	w.f.sealBlocks(dst[:crypto.SealedLen(len(p))], p, block)
	return len(p)
}

// edge seals a block of which p covers only a part, together with what the block held before.
func (w *writer) edge(dst, p []byte, block int64, skip int) (int, error) {
	start := block * crypto.BlockSize
	oldLen := int(min(crypto.BlockSize, max(0, w.s.oldEOF-start)))
	newLen := int(min(crypto.BlockSize, w.s.newEOF-start))
	n := min(len(p), newLen-skip)
	scratch := w.f.v.buffers.block()
	defer w.f.v.buffers.putBlock(scratch)
	if oldLen > 0 && (skip > 0 || n < oldLen) {
		if _, err := w.f.read((*scratch)[:oldLen], start, w.s.oldEOF); err != nil {
			return 0, err
		}
	}
	copy((*scratch)[skip:], p[:n])
	w.keepTail((*scratch)[:newLen], block)
	w.f.sealBlocks(dst[:crypto.SealedLen(newLen)], (*scratch)[:newLen], block)
	return n, nil
}

// keepTail remembers the old part of the old last block, if it is among the blocks from block on that content is for, and
// becomes longer.
func (w *writer) keepTail(content []byte, block int64) {
	oldLen := int(w.s.oldEOF % crypto.BlockSize)
	at := (w.s.oldEOF/crypto.BlockSize - block) * crypto.BlockSize
	if w.s.newEOF > w.s.oldEOF && oldLen > 0 && 0 <= at && at < int64(len(content)) && w.last.buf == nil {
		w.last = w.f.copyLast(content[at:][:oldLen], oldLen)
	}
}

// cutBack undoes a growing write that failed: the file ends again where it did, and its last block is as long as it was.
func (w *writer) cutBack(size int64) {
	if w.begun {
		w.f.restoreLast(w.last, size)
	}
}

// pad makes the old last block of a growing write that failed as long as it has to be because others have built on the size
// that the write announced. If anything was written, that block was, as the first one.
func (w *writer) pad() {
	if w.begun || w.last.content == nil {
		return
	}
	if err := w.f.storeBlock(*w.last.buf, w.s.oldEOF/crypto.BlockSize); err != nil {
		w.f.v.log.Error("cannot make a block whole after a failed write", "file_id", w.f.key.id, "error", err)
	}
	w.begun = true
}

// storeBlock seals content as the given block and writes it in place, without a record.
func (f *File) storeBlock(content []byte, block int64) error {
	buf := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(buf)
	sealed := (*buf)[:crypto.SealedLen(len(content))]
	f.key.content.SealBlocks(sealed, content, uint64(block))
	return f.store(sealed, f.v.layout.BlockOffset(block))
}

// store writes sealed blocks. When the disk takes only a part of them, the block that was cut is finished if the disk lets
// us: half a block could not be read again.
func (f *File) store(sealed []byte, off int64) error {
	n, err := f.v.store.WriteAt(f.FD(), sealed, off)
	if err == nil {
		return nil
	}
	if cut := n % crypto.CipherBlockSize; cut > 0 {
		end := min(n-cut+crypto.CipherBlockSize, len(sealed))
		if _, rerr := f.v.store.WriteAt(f.FD(), sealed[n:end], off+int64(n)); rerr != nil {
			f.undoCut(off+int64(n-cut), off+int64(n), off+int64(end), rerr)
		}
	}
	return err
}

// undoCut makes the block [from, end) of the backing file, of which only the bytes before cut could be written, a hole again
// if it was one. A full disk does that to a write into a hole.
func (f *File) undoCut(from, cut, end int64, reason error) {
	rest := make([]byte, end-cut)
	n, err := f.v.store.ReadAt(f.FD(), rest, cut)
	if err == nil && allZero(rest[:n]) {
		err = f.v.store.Fallocate(f.FD(), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, end-from)
		if err == nil {
			return
		}
	}
	f.v.log.Error("a block was left half-written", "file_id", f.key.id, "offset", from, "error", errors.Join(reason, err))
}
