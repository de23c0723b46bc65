package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/envfs/envfs/internal/secret"
)

// SuiteXAES256GCM is cipher suite 1: XAES-256-GCM blocks.
const SuiteXAES256GCM = 1

// Flags of a sealed part.
type Flags uint16

const (
	// FlagSealed says that Size is the file's size and that nothing was written since.
	FlagSealed Flags = 1 << iota
	// FlagSparse says that the file has holes: all-zero blocks that are no damage.
	FlagSparse

	knownFlags = FlagSealed | FlagSparse
)

// Header is what the sealed part of a slot says about its file.
type Header struct {
	Suite     uint8 // SuiteXAES256GCM
	BlockLog2 uint8 // BlockLog2, of the plaintext block size
	Flags     Flags
	Volume    ID
	File      ID
	Size      uint64 // plaintext bytes, if FlagSealed is set; else as many as were durable when it was written, or fewer
}

// SealedPartSize is the size of a SealedPart: 48 bytes of fields and their MAC.
const SealedPartSize = sealedFields + sha256.Size

const sealedFields = 48

// SealedPart is the authenticated part of a slot. An update of the wrapped DEK
// copies it verbatim, because making one needs the DEK. All integers big endian:
//
//	 0  suite        1
//	 1  block log2   1
//	 2  flags        2
//	 4  zero         4
//	 8  volume ID   16
//	24  file ID     16
//	40  size         8
//	48  HMAC-SHA256 32  over bytes 0..47, key HKDF-SHA256(DEK, "envfs v1 header")
type SealedPart [SealedPartSize]byte

var (
	// ErrHeaderTampered says that a sealed part is not authentic under this DEK.
	ErrHeaderTampered = errors.New("header authentication failed")
	// ErrUnsupported says that a sealed part asks for a cipher suite, block size or
	// flag that this version does not know.
	ErrUnsupported = errors.New("header asks for a feature this version does not know")
)

// HeaderMAC makes and opens the sealed parts of one file. It is safe for concurrent
// use until Wipe. The MAC also commits to the DEK, which XAES-256-GCM does not.
type HeaderMAC struct{ key []byte }

// NewHeaderMAC derives the MAC key from a DEK of DEKSize bytes; it panics on
// another size.
func NewHeaderMAC(dek []byte) *HeaderMAC {
	return &HeaderMAC{key: deriveKey(dek, labelHeader, sha256.Size)}
}

// Wipe zeroes the key; the HeaderMAC must not be used after.
func (m *HeaderMAC) Wipe() {
	secret.Wipe(m.key)
	m.key = nil
}

// Seal encodes and authenticates h. It panics if h is not one that Open accepts.
func (m *HeaderMAC) Seal(h Header) SealedPart {
	var p SealedPart
	p[0], p[1] = h.Suite, h.BlockLog2
	binary.BigEndian.PutUint16(p[2:], uint16(h.Flags))
	copy(p[8:], h.Volume[:])
	copy(p[24:], h.File[:])
	binary.BigEndian.PutUint64(p[40:], h.Size)
	if _, err := p.Peek(); err != nil {
		panic(fmt.Sprintf("crypto: sealing a header: %v", err))
	}
	copy(p[sealedFields:], m.sum(p))
	return p
}

// Open authenticates p in constant time and decodes it, or fails with
// ErrHeaderTampered, or with ErrUnsupported for an authentic part of a newer version.
func (m *HeaderMAC) Open(p SealedPart) (Header, error) {
	if !hmac.Equal(p[sealedFields:], m.sum(p)) {
		return Header{}, ErrHeaderTampered
	}
	return p.Peek()
}

func (m *HeaderMAC) sum(p SealedPart) []byte {
	if m.key == nil {
		panic("crypto: use of a wiped HeaderMAC")
	}
	h := hmac.New(sha256.New, m.key)
	h.Write(p[:sealedFields])
	return h.Sum(nil)
}

// Peek decodes p without any key. What it returns is a claim of whoever wrote the
// file: fit for showing and counting, never for a decision about data.
func (p SealedPart) Peek() (Header, error) {
	h := Header{
		Suite:     p[0],
		BlockLog2: p[1],
		Flags:     Flags(binary.BigEndian.Uint16(p[2:])),
		Volume:    ID(p[8:24]),
		File:      ID(p[24:40]),
		Size:      binary.BigEndian.Uint64(p[40:]),
	}
	switch {
	case h.Suite != SuiteXAES256GCM:
		return Header{}, fmt.Errorf("%w: cipher suite %d", ErrUnsupported, h.Suite)
	case h.BlockLog2 != BlockLog2:
		return Header{}, fmt.Errorf("%w: blocks of 2^%d bytes", ErrUnsupported, h.BlockLog2)
	case h.Flags&^knownFlags != 0:
		return Header{}, fmt.Errorf("%w: flags %#x", ErrUnsupported, uint16(h.Flags))
	case !bytes.Equal(p[4:8], make([]byte, 4)):
		return Header{}, fmt.Errorf("%w: reserved bytes", ErrUnsupported)
	case h.Size > maxSealedSize:
		return Header{}, fmt.Errorf("%w: size %d", ErrUnsupported, h.Size)
	}
	return h, nil
}

// maxSealedSize keeps a size taken from a header within an int64 (off_t).
const maxSealedSize = 1<<63 - 1
