package volume

import (
	"context"
	"errors"

	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

// LostRange is a run of blocks of one file that could not be read, and have become zeros.
type LostRange struct {
	Block  int64 // index of the first
	Blocks int64
	Reason string
}

// Bytes returns the range in plaintext bytes, in a file of size bytes.
func (r LostRange) Bytes(size int64) (from, to int64) {
	return r.Block * crypto.BlockSize, min((r.Block+r.Blocks)*crypto.BlockSize, size)
}

// salvagedFile reads a File around its damage: blocks that cannot be read are zeros, and are noted. It needs the key, so a
// file without a whole header is beyond it.
type salvagedFile struct {
	*File
	present int64 // how much of the plaintext is on disk at all, in whole blocks unless it is the whole file
	lost    []LostRange
}

// openSalvaged is OpenFile for reading a file whose size may be wrong. Its size is then the sealed one.
func (v *Volume) openSalvaged(ctx context.Context, fd int, size int64) (*salvagedFile, error) {
	f := v.newFile(fd, false, noEvents{})
	f.anySize = true
	if err := f.load(ctx, size); err != nil {
		return nil, err
	}
	s := &salvagedFile{File: f, present: f.Size()}
	if size < v.layout.CipherSize(s.present) {
		s.present = max(size-v.layout.HeaderSize(), 0) / crypto.CipherBlockSize * crypto.BlockSize
		s.lose(LostRange{
			Block: s.present / crypto.BlockSize, Blocks: blocksFor(f.Size()) - s.present/crypto.BlockSize, Reason: ErrShortFile.Error(),
		})
	}
	return s, nil
}

// nextData passes over what is not on disk, as over a hole.
func (s *salvagedFile) nextData(off int64) (from, to int64, err error) {
	if off >= s.present {
		return s.Size(), s.Size(), nil
	}
	from, to, err = s.File.nextData(off)
	if from >= s.present {
		return s.Size(), s.Size(), err
	}
	return from, min(to, s.present), err
}

// ReadAt reads p from offset off, which is that of a block.
func (s *salvagedFile) ReadAt(p []byte, off int64) (int, error) {
	done, step := 0, len(p)
	for done < len(p) {
		n, err := s.File.ReadAt(p[done:min(done+step, len(p))], off+int64(done))
		done += n
		var bad *BlockDamage
		switch {
		case err == nil && n > 0:
		case err == nil:
			return done, ErrShortFile
		case errors.As(err, &bad):
			done += s.skip(p[done:], bad.Block, bad.Reason)
		case !errors.Is(err, unix.EIO):
			return done, err
		case step > crypto.BlockSize: // the disk says only that something in the run is bad
			step = crypto.BlockSize
		default:
			done += s.skip(p[done:], (off+int64(done))/crypto.BlockSize, err)
		}
	}
	return done, nil
}

// skip makes the block at the start of p zeros and returns its length.
func (s *salvagedFile) skip(p []byte, block int64, reason error) int {
	p = p[:min(len(p), crypto.BlockSize)]
	clear(p)
	s.lose(LostRange{Block: block, Blocks: 1, Reason: reasonOf(reason)})
	return len(p)
}

// lose notes a range, as part of the last one if it follows that and has the same reason.
func (s *salvagedFile) lose(r LostRange) {
	if n := len(s.lost); n > 0 {
		last := &s.lost[n-1]
		if last.Block+last.Blocks == r.Block && last.Reason == r.Reason {
			last.Blocks += r.Blocks
			return
		}
	}
	s.lost = append(s.lost, r)
}

// lostOf returns what a file that was read has lost.
func lostOf(source openSource) []LostRange {
	if r, ok := source.(cipherReader); ok {
		if s, ok := r.contentSource.(*salvagedFile); ok {
			return s.lost
		}
	}
	return nil
}

// reasonOf says why a block is bad, without its number.
func reasonOf(err error) string {
	var block *crypto.BlockError
	if errors.As(err, &block) {
		return block.Reason
	}
	return err.Error()
}
