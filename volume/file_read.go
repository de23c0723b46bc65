package volume

import (
	"errors"
	"fmt"

	"github.com/envfs/envfs/crypto"
)

// BlockDamage is the error for a block that is not what was written: the file stays readable around it.
type BlockDamage struct {
	File   crypto.ID
	Block  int64
	Reason error
}

func (e *BlockDamage) Error() string {
	return fmt.Sprintf("block %d of file %s: %v", e.Block, e.File, e.Reason)
}

func (e *BlockDamage) Unwrap() error { return e.Reason }

// ErrShortFile means that the backing file ends before the plaintext should: it was cut behind the mount's back.
var ErrShortFile = errors.New("the ciphertext ends too early")

// ReadAt reads into p from plaintext offset off and returns how many bytes there were before the end of the file, like
// pread(2). On an error the bytes before the bad block are valid and counted.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if err := f.key.check(); err != nil {
		return 0, err
	}
	s := f.extents.lockRead(off, int64(len(p)))
	defer f.extents.unlock(s)
	if off >= s.oldEOF {
		return 0, nil
	}
	return f.read(p[:min(int64(len(p)), s.oldEOF-off)], off, s.oldEOF)
}

// read fills p, which lies within eof, from offset off. The caller holds the blocks.
func (f *File) read(p []byte, off, eof int64) (int, error) {
	if f.header.hollow && f.header.get() == headerNone {
		clear(p)
		return len(p), nil
	}
	holes := f.extents.zeroPolicy()
	done := 0
	for done < len(p) {
		pos := off + int64(done)
		n, err := f.readChunk(p[done:], pos, eof, holes)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// readChunk reads up to chunkBlocks blocks. Whole blocks are decrypted straight into p; the edges pass through scratch.
func (f *File) readChunk(p []byte, off, eof int64, holes crypto.HolePolicy) (int, error) {
	first := off / crypto.BlockSize
	last := min(blocksFor(off+int64(len(p))), first+chunkBlocks)
	want := f.sealedBetween(first, last, eof)
	buf := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(buf)
	n, err := f.v.store.ReadAt(f.FD(), (*buf)[:want], f.v.layout.BlockOffset(first))
	if err != nil {
		return 0, err
	}
	r := blockReader{f: f, sealed: (*buf)[:n], first: first, eof: eof, holes: holes}
	done := 0
	for block := first; block < last && done < len(p); {
		var n int
		skip := int((off + int64(done)) % crypto.BlockSize)
		if whole := (len(p) - done) / crypto.BlockSize; skip == 0 && whole > 0 {
			count := min(int64(whole), last-block)
			n, err = r.run(p[done:done+int(count)*crypto.BlockSize], block)
			block += count
		} else {
			n, err = r.edge(p[done:], block, skip)
			block++
		}
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// sealedBetween returns how many bytes the blocks [first, last) take on disk in a file of eof bytes.
func (f *File) sealedBetween(first, last, eof int64) int64 {
	end := min(f.v.layout.BlockOffset(last), f.v.layout.CipherSize(eof))
	return end - f.v.layout.BlockOffset(first)
}

// blockReader opens blocks out of one chunk of ciphertext that starts at block first.
type blockReader struct {
	f      *File
	sealed []byte
	first  int64
	eof    int64
	holes  crypto.HolePolicy
}

// run decrypts whole blocks from block on into p, in parallel if there are many.
func (r blockReader) run(p []byte, block int64) (int, error) {
	from := int(block-r.first) * crypto.CipherBlockSize
	count := len(p) / crypto.BlockSize
	to := from + count*crypto.CipherBlockSize
	if to > len(r.sealed) {
		return 0, r.short(block)
	}
	n, err := r.f.v.parallel(count, func(lo, hi int) (int, error) {
		return r.f.key.content.OpenBlocks(p[lo*crypto.BlockSize:hi*crypto.BlockSize],
			r.sealed[from+lo*crypto.CipherBlockSize:from+hi*crypto.CipherBlockSize], uint64(block)+uint64(lo), r.holes)
	})
	if err == nil {
		return n, nil
	}
	if bad := block + int64(n/crypto.BlockSize); r.f.torn.at(bad, err) {
		r.f.noteTorn(bad)
		clear(p[n : n+crypto.BlockSize])
		n += crypto.BlockSize
		rest, err := r.run(p[n:], bad+1)
		return n + rest, err
	}
	return n, r.damage(err)
}

// edge decrypts one block and copies what p wants of it, from byte skip on.
func (r blockReader) edge(p []byte, block int64, skip int) (int, error) {
	from := int(block-r.first) * crypto.CipherBlockSize
	length := int(min(crypto.BlockSize, r.eof-block*crypto.BlockSize))
	to := from + length + crypto.BlockOverhead
	if to > len(r.sealed) {
		return 0, r.short(block)
	}
	scratch := r.f.v.buffers.block()
	defer r.f.v.buffers.putBlock(scratch)
	if _, err := r.f.key.content.OpenBlocks((*scratch)[:length], r.sealed[from:to], uint64(block), r.holes); err != nil {
		if !r.f.torn.at(block, err) {
			return 0, r.damage(err)
		}
		r.f.noteTorn(block)
		clear((*scratch)[:length])
	}
	return copy(p, (*scratch)[skip:length]), nil
}

func (r blockReader) short(block int64) error {
	return &BlockDamage{File: r.f.key.id, Block: block, Reason: ErrShortFile}
}

func (r blockReader) damage(err error) error {
	if err == nil {
		return nil
	}
	var bad *crypto.BlockError
	if errors.As(err, &bad) {
		return &BlockDamage{File: r.f.key.id, Block: int64(bad.Index), Reason: err}
	}
	return err
}
