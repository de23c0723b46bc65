package crypto

import (
	"errors"
	"math"
)

// Sizes in bytes of what is on disk.
const (
	BlockLog2       = 12             // log2 of BlockSize, as the sealed part states it
	BlockSize       = 1 << BlockLog2 // plaintext of a whole block
	NonceSize       = 24
	TagSize         = 16
	BlockOverhead   = NonceSize + TagSize
	CipherBlockSize = BlockSize + BlockOverhead // a whole block on disk
	DEKSize         = 32
	PayloadSize     = DEKSize + 16 // what is wrapped: DEK ‖ ID
)

var (
	// ErrTruncatedHeader says that a file is not empty and yet shorter than its header.
	ErrTruncatedHeader = errors.New("file is shorter than its header")
	// ErrTornTail says that a file ends in 1 to BlockOverhead bytes, too few for a
	// block of one byte: its last write was cut off.
	ErrTornTail = errors.New("file ends within a block")
)

// Layout is the arithmetic between offsets in the plaintext and in the file on
// disk. It depends on nothing but the slot size, so that sizes need no file opened.
type Layout struct {
	SlotSize int64 // bytes of one header slot: 512 or 1024, the same in a whole volume
}

// HeaderSize is the offset of block 0: two slots.
func (l Layout) HeaderSize() int64 { return 2 * l.SlotSize }

// MaxPlainSize is the largest plaintext whose size on disk an int64 can hold.
// Callers refuse to grow a file beyond it (EFBIG).
func (l Layout) MaxPlainSize() int64 {
	blocks, rest := l.blocks(math.MaxInt64)
	return blocks*BlockSize + max(rest-BlockOverhead, 0)
}

// CipherSize returns the size on disk of a file with plain bytes; a file of 0 bytes
// is its header. It returns MaxInt64 for a plain beyond MaxPlainSize.
func (l Layout) CipherSize(plain int64) int64 {
	if plain > l.MaxPlainSize() {
		return math.MaxInt64
	}
	size := l.HeaderSize() + plain/BlockSize*CipherBlockSize
	if rest := plain % BlockSize; rest > 0 {
		size += rest + BlockOverhead
	}
	return size
}

// PlainSize returns the plaintext size of a file of cipher bytes on disk; 0 is an
// empty file without a header. It fails with ErrTruncatedHeader (and 0) below a
// whole header, and with ErrTornTail, and the size of the whole blocks, if the end
// is no block.
func (l Layout) PlainSize(cipher int64) (int64, error) {
	if cipher == 0 {
		return 0, nil
	}
	if cipher < l.HeaderSize() {
		return 0, ErrTruncatedHeader
	}
	blocks, rest := l.blocks(cipher)
	switch {
	case rest == 0:
		return blocks * BlockSize, nil
	case rest <= BlockOverhead:
		return blocks * BlockSize, ErrTornTail
	}
	return blocks*BlockSize + rest - BlockOverhead, nil
}

// BlockOffset returns the offset on disk of the block with that index, counted from
// 0, or MaxInt64 where an int64 cannot hold it.
func (l Layout) BlockOffset(index int64) int64 {
	if index > (math.MaxInt64-l.HeaderSize())/CipherBlockSize {
		return math.MaxInt64
	}
	return l.HeaderSize() + index*CipherBlockSize
}

// blocks splits what follows the header into whole blocks and the bytes after them.
func (l Layout) blocks(cipher int64) (whole, rest int64) {
	body := cipher - l.HeaderSize()
	return body / CipherBlockSize, body % CipherBlockSize
}
