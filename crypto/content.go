package crypto

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
)

// HolePolicy says what an all-zero sealed block means.
type HolePolicy uint8

const (
	// HolesForbidden makes it damage: a sealed file without the sparse flag.
	HolesForbidden HolePolicy = iota
	// HolesAllowed makes it plaintext zeros: an unsealed file, or one with the flag.
	HolesAllowed
)

// Reasons a BlockError gives.
const (
	ReasonTampered = "authentication failed" // changed, moved, of another file or key
	ReasonZeroed   = "zeroed"                // all zero where no hole may be
	ReasonTorn     = "torn"                  // too short to be a block
)

// BlockError says which block cannot be read and why. It is the application's EIO.
type BlockError struct {
	Index  uint64 // of the block in its file
	Reason string // one of the Reason constants
}

func (e *BlockError) Error() string { return fmt.Sprintf("block %d: %s", e.Index, e.Reason) }

const (
	additionalSize = 16 + 8 // file ID ‖ block index
	nonceTailSize  = NonceSize - PrefixSize
	noncesPerDraw  = 64 // nonce tails taken from the random source at a time
	recentKeys     = 8  // derived keys kept for reading, beside the last used one

	// blocksPerPrefix bounds the random 96-bit nonces under one derived key: 2^28
	// blocks (1 TiB) keep the probability of a collision below 2^-40.
	blocksPerPrefix = 1 << 28
)

// ContentCipher encrypts the blocks of one file. It is safe for concurrent use; one
// is made for each open inode and shared by its handles.
//
// A sealed block is nonce (24) ‖ ciphertext (1..BlockSize) ‖ tag (16) with XAES-256-GCM
// under the DEK and the associated data file ID (16) ‖ block index (8, big endian).
// The first half of the nonce is drawn at the first write and kept, so that its
// derived key is made once; the second half is random for each block.
type ContentCipher struct {
	xaes *XAES
	file ID

	sealing atomic.Pointer[sealingKey] // nil before the first write; replaced under renew
	renew   sync.Mutex                 // a leaf lock: drawing a new prefix

	last   atomic.Pointer[derivedKey] // the last one used for reading
	recent [recentKeys]atomic.Pointer[derivedKey]
	evict  atomic.Uint32 // next slot of recent to replace

	scratch sync.Pool // *scratch
}

// derivedKey is AES-256-GCM for one half of the nonce; immutable.
type derivedKey struct {
	prefix [PrefixSize]byte
	aead   cipher.AEAD
}

type sealingKey struct {
	derivedKey
	blocks atomic.Uint64 // sealed so far
}

// scratch is what a run needs on the heap, because it passes through an interface.
type scratch struct {
	additional [additionalSize]byte
	tails      [noncesPerDraw * nonceTailSize]byte
}

// NewContentCipher makes the cipher of a file from its DEK of DEKSize bytes, of
// which it keeps no view.
func NewContentCipher(dek []byte, file ID) (*ContentCipher, error) {
	xaes, err := NewXAES(dek)
	if err != nil {
		return nil, err
	}
	c := &ContentCipher{xaes: xaes, file: file}
	c.scratch.New = func() any {
		s := new(scratch)
		copy(s.additional[:], file[:])
		return s
	}
	return c, nil
}

// SealedLen is the size on disk of a run of plain bytes that starts at a block.
func SealedLen(plain int) int {
	return plain + (plain+BlockSize-1)/BlockSize*BlockOverhead
}

// OpenedLen is the plaintext size of a run of sealed bytes that starts at a block;
// a torn tail counts as nothing.
func OpenedLen(sealed int) int {
	rest := sealed % CipherBlockSize
	return sealed/CipherBlockSize*BlockSize + max(rest-BlockOverhead, 0)
}

// SealBlocks encrypts plain, a run of whole blocks of which the last may be shorter,
// into dst; first is the index of its first block. It panics if len(dst) is not
// SealedLen(len(plain)). The two must not overlap.
func (c *ContentCipher) SealBlocks(dst, plain []byte, first uint64) {
	if len(dst) != SealedLen(len(plain)) {
		panic("crypto: SealBlocks: wrong size of dst")
	}
	if len(plain) == 0 {
		return
	}
	left := (len(plain) + BlockSize - 1) / BlockSize
	key := c.sealingKey(uint64(left))
	s := c.scratch.Get().(*scratch)
	defer c.scratch.Put(s)
	var tails []byte
	for index := first; left > 0; index++ {
		if len(tails) == 0 {
			tails = s.tails[:min(left, noncesPerDraw)*nonceTailSize]
			rand.Read(tails) // never fails: the runtime ends the process instead
		}
		n := min(len(plain), BlockSize)
		nonce := dst[:NonceSize:NonceSize]
		copy(nonce, key.prefix[:])
		copy(nonce[PrefixSize:], tails[:nonceTailSize])
		binary.BigEndian.PutUint64(s.additional[len(c.file):], index)
		key.aead.Seal(dst[NonceSize:NonceSize], nonce[PrefixSize:], plain[:n], s.additional[:])
		dst, plain, tails, left = dst[n+BlockOverhead:], plain[n:], tails[nonceTailSize:], left-1
	}
}

// OpenBlocks decrypts sealed, a run of whole blocks of which the last may be
// shorter, into dst; first is the index of its first block. It returns the number
// of plaintext bytes written. dst needs room for OpenedLen(len(sealed)) bytes, no
// more is touched, and it panics with less. The two must not overlap.
//
// At the first block that cannot be read it stops with a *BlockError: the blocks
// before it are valid, and dst beyond n holds nothing of the ones after.
func (c *ContentCipher) OpenBlocks(dst, sealed []byte, first uint64, holes HolePolicy) (n int, err error) {
	if len(dst) < OpenedLen(len(sealed)) {
		panic("crypto: OpenBlocks: dst is too small")
	}
	s := c.scratch.Get().(*scratch)
	defer c.scratch.Put(s)
	key := c.last.Load()
	for index := first; len(sealed) > 0; index++ {
		block := sealed[:min(len(sealed), CipherBlockSize)]
		sealed = sealed[len(block):]
		if len(block) <= BlockOverhead {
			return n, &BlockError{index, ReasonTorn}
		}
		plain := dst[n:][:len(block)-BlockOverhead]
		if isZero(block) {
			if holes != HolesAllowed {
				return n, &BlockError{index, ReasonZeroed}
			}
			clear(plain)
			n += len(plain)
			continue
		}
		prefix := (*[PrefixSize]byte)(block)
		if key == nil || key.prefix != *prefix {
			key = c.openingKey(prefix)
		}
		binary.BigEndian.PutUint64(s.additional[len(c.file):], index)
		_, err := key.aead.Open(plain[:0:len(plain)], block[PrefixSize:NonceSize], block[NonceSize:], s.additional[:])
		if err != nil {
			return n, &BlockError{index, ReasonTampered}
		}
		n += len(plain)
	}
	return n, nil
}

// sealingKey returns the key for sealing so many more blocks.
func (c *ContentCipher) sealingKey(blocks uint64) *sealingKey {
	if key := c.sealing.Load(); key != nil && key.blocks.Add(blocks) <= blocksPerPrefix {
		return key
	}
	c.renew.Lock()
	defer c.renew.Unlock()
	if key := c.sealing.Load(); key != nil && key.blocks.Add(blocks) <= blocksPerPrefix {
		return key // another goroutine was first
	}
	var prefix [PrefixSize]byte
	rand.Read(prefix[:])
	key := &sealingKey{derivedKey: *c.derive(&prefix)}
	key.blocks.Store(blocks)
	c.sealing.Store(key)
	c.remember(&key.derivedKey) // what is written is often read back
	return key
}

// openingKey returns the key for that half of the nonce, derived or remembered.
func (c *ContentCipher) openingKey(prefix *[PrefixSize]byte) *derivedKey {
	for i := range c.recent {
		if key := c.recent[i].Load(); key != nil && key.prefix == *prefix {
			c.last.Store(key)
			return key
		}
	}
	key := c.derive(prefix)
	c.remember(key)
	c.last.Store(key)
	return key
}

// remember puts a key in the place of the oldest. Two goroutines may remember the
// same key twice, which wastes a place for a while and harms nothing.
func (c *ContentCipher) remember(key *derivedKey) {
	c.recent[(c.evict.Add(1)-1)%recentKeys].Store(key)
}

func (c *ContentCipher) derive(prefix *[PrefixSize]byte) *derivedKey {
	aead, err := c.xaes.Derive(prefix)
	if err != nil {
		// Key and nonce have fixed, right sizes: only a build that forbids AES-GCM fails.
		panic(fmt.Sprintf("crypto: %v", err))
	}
	return &derivedKey{prefix: *prefix, aead: aead}
}

func isZero(block []byte) bool {
	// The first word of a real block is random: one comparison settles nearly all.
	if binary.NativeEndian.Uint64(block) != 0 {
		return false
	}
	// All bytes are equal to the first, which is zero, if block equals itself shifted.
	return bytes.Equal(block[1:], block[:len(block)-1])
}
