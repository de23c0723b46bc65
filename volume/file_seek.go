package volume

import (
	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

// Seek finds data (whence unix.SEEK_DATA) or a hole (unix.SEEK_HOLE) at or after plaintext offset off, like lseek(2).
// Holes are found to the block: one is reported only where the backing file has none of a block's bytes.
func (f *File) Seek(off int64, whence int) (int64, error) {
	s := f.extents.lockRead(0, MaxSize)
	defer f.extents.unlock(s)
	if off < 0 || off >= s.oldEOF {
		return 0, unix.ENXIO
	}
	if whence == unix.SEEK_DATA {
		return f.seekData(off, s.oldEOF)
	}
	return f.seekHole(off, s.oldEOF)
}

func (f *File) seekData(off, eof int64) (int64, error) {
	block := off / crypto.BlockSize
	for {
		at, err := f.v.store.Seek(f.FD(), f.v.layout.BlockOffset(block), unix.SEEK_DATA)
		if err != nil {
			return 0, err // ENXIO: nothing but holes from here on
		}
		found := max(block, (at-f.v.layout.HeaderSize())/crypto.CipherBlockSize)
		if found*crypto.BlockSize >= eof {
			return 0, unix.ENXIO
		}
		// The page where data starts may hold only the end of a block whose own bytes are zeros.
		hole, err := f.blockIsHole(found, eof)
		if err != nil {
			return 0, err
		}
		if !hole {
			return max(off, found*crypto.BlockSize), nil
		}
		block = found + 1
		if block*crypto.BlockSize >= eof {
			return 0, unix.ENXIO
		}
	}
}

func (f *File) seekHole(off, eof int64) (int64, error) {
	block := off / crypto.BlockSize
	for block*crypto.BlockSize < eof {
		at, err := f.v.store.Seek(f.FD(), f.v.layout.BlockOffset(block), unix.SEEK_HOLE)
		if err != nil {
			return 0, err
		}
		block = max(block, (at-f.v.layout.HeaderSize())/crypto.CipherBlockSize)
		if block*crypto.BlockSize >= eof {
			break
		}
		hole, err := f.blockIsHole(block, eof)
		if err != nil {
			return 0, err
		}
		if hole {
			return max(off, block*crypto.BlockSize), nil
		}
		block++
	}
	return eof, nil
}

// blockIsHole reports whether a block is stored as zeros.
func (f *File) blockIsHole(block, eof int64) (bool, error) {
	buf := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(buf)
	n, err := f.v.store.ReadAt(f.FD(), (*buf)[:f.sealedBetween(block, block+1, eof)], f.v.layout.BlockOffset(block))
	if err != nil {
		return false, err
	}
	return allZero((*buf)[:n]), nil
}
