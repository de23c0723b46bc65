package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of a header slot. A volume uses one of them for all of its files.
const (
	SmallSlot = 512
	LargeSlot = 1024
)

// SlotVersion is the version of the slot's envelope that this package writes.
const SlotVersion = 1

const (
	slotMagic    = "ENVFSHD1"
	slotFixed    = 22 // magic 8, version 2, slot size 2, sequence 8, length 2
	checksumSize = 16
	slotTail     = SealedPartSize + checksumSize
)

// Slot is one of the two copies of a file's header. Sequence and Wrapped are the
// envelope, which whoever may rewrap replaces without any DEK. On disk, all integers
// big endian:
//
//	 0         magic "ENVFSHD1"   8
//	 8         version            2  SlotVersion
//	10         slot size          2
//	12         sequence           8
//	20         length of wrapped  2
//	22         wrapped, then zeros
//	size−96    sealed part       80
//	size−16    checksum          16  first bytes of SHA-256 over all before it
//
// The checksum finds torn writes; it authenticates nothing. A later version keeps
// magic, version, slot size and checksum where they are.
type Slot struct {
	Sequence uint64     // the valid slot with the higher one counts
	Wrapped  string     // the key service's own string: printable ASCII, no space
	Sealed   SealedPart // copied verbatim by a rewrap
}

var (
	// ErrNoSlot says that a slot is all zero: none was written there yet.
	ErrNoSlot = errors.New("no header slot")
	// ErrBadMagic says that the bytes are no header of envfs.
	ErrBadMagic = errors.New("not an envfs header")
	// ErrNewerVersion says that a whole slot was written by a newer version.
	ErrNewerVersion = errors.New("header was written by a newer version of envfs")
	// ErrChecksum says that a slot was written half or damaged.
	ErrChecksum = errors.New("header slot is torn or damaged")
	// ErrSlotSize says that a slot has another size than its volume's.
	ErrSlotSize = errors.New("header slot has the wrong size")
	// ErrMalformedSlot says that a slot with a right checksum breaks the format.
	ErrMalformedSlot = errors.New("header slot is malformed")
	// ErrWrappedTooLong says that a wrapped DEK fits no slot of that size.
	ErrWrappedTooLong = errors.New("wrapped key is too long for the header slot")
)

// MaxWrapped returns the longest wrapped DEK, in bytes, that a slot of slotSize
// bytes holds.
func MaxWrapped(slotSize int) int { return slotSize - slotFixed - slotTail }

// SlotSizeFor returns the smallest slot size for wrapped DEKs of up to wrappedLen
// bytes, or ErrWrappedTooLong.
func SlotSizeFor(wrappedLen int) (int, error) {
	for _, size := range []int{SmallSlot, LargeSlot} {
		if wrappedLen <= MaxWrapped(size) {
			return size, nil
		}
	}
	return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrWrappedTooLong, wrappedLen, MaxWrapped(LargeSlot))
}

// EncodeSlot writes s over the whole of dst, whose length is the slot size. It
// fails with ErrWrappedTooLong, ErrSlotSize, or ErrMalformedSlot for a wrapped DEK
// that is empty or not printable ASCII; dst is then as before.
func EncodeSlot(dst []byte, s Slot) error {
	size := len(dst)
	if !isSlotSize(size) {
		return fmt.Errorf("%w: %d bytes", ErrSlotSize, size)
	}
	if len(s.Wrapped) > MaxWrapped(size) {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrWrappedTooLong, len(s.Wrapped), MaxWrapped(size))
	}
	if !isWrapped(s.Wrapped) {
		return fmt.Errorf("%w: wrapped key is not printable text", ErrMalformedSlot)
	}
	clear(dst)
	copy(dst, slotMagic)
	binary.BigEndian.PutUint16(dst[8:], SlotVersion)
	binary.BigEndian.PutUint16(dst[10:], uint16(size))
	binary.BigEndian.PutUint64(dst[12:], s.Sequence)
	binary.BigEndian.PutUint16(dst[20:], uint16(len(s.Wrapped)))
	copy(dst[slotFixed:], s.Wrapped)
	copy(dst[size-slotTail:], s.Sealed[:])
	sum := sha256.Sum256(dst[:size-checksumSize])
	copy(dst[size-checksumSize:], sum[:])
	return nil
}

// DecodeSlot reads a slot whose size is len(src). It fails with one of the errors
// above, each of which says what is wrong. It trusts nothing: the result is what
// EncodeSlot turns back into src.
func DecodeSlot(src []byte) (Slot, error) {
	if !isSlotSize(len(src)) {
		return Slot{}, fmt.Errorf("%w: %d bytes", ErrSlotSize, len(src))
	}
	if err := checkEnvelope(src); err != nil {
		return Slot{}, err
	}
	length := int(binary.BigEndian.Uint16(src[20:]))
	if length > MaxWrapped(len(src)) {
		return Slot{}, fmt.Errorf("%w: wrapped key of %d bytes", ErrMalformedSlot, length)
	}
	s := Slot{
		Sequence: binary.BigEndian.Uint64(src[12:]),
		Wrapped:  string(src[slotFixed:][:length]),
		Sealed:   SealedPart(src[len(src)-slotTail:]),
	}
	padding := src[slotFixed+length : len(src)-slotTail]
	if !isWrapped(s.Wrapped) || len(bytes.Trim(padding, "\x00")) > 0 {
		return Slot{}, fmt.Errorf("%w: wrapped key is not printable text padded with zeros", ErrMalformedSlot)
	}
	return s, nil
}

// checkEnvelope checks what every version has in the same place, then the version.
func checkEnvelope(src []byte) error {
	body := src[:len(src)-checksumSize]
	sum := sha256.Sum256(body)
	version := binary.BigEndian.Uint16(src[8:])
	size := int(binary.BigEndian.Uint16(src[10:]))
	switch {
	case len(bytes.Trim(src, "\x00")) == 0:
		return ErrNoSlot
	case string(src[:8]) != slotMagic:
		return ErrBadMagic
	case size != len(src) && isSlotSize(size):
		return fmt.Errorf("%w: %d bytes, not %d", ErrSlotSize, size, len(src))
	case !bytes.Equal(sum[:checksumSize], src[len(body):]):
		return ErrChecksum
	case version > SlotVersion:
		return fmt.Errorf("%w: version %d", ErrNewerVersion, version)
	case version != SlotVersion || size != len(src):
		return fmt.Errorf("%w: version %d, size %d", ErrMalformedSlot, version, size)
	}
	return nil
}

// NewestSlot chooses between the two slots of a file's header: of the valid ones
// that with the higher sequence number, the first if both have the same. The index
// (0 or 1) is the slot's place; the next update goes to the other one. A slot of a
// newer version is never passed over for the other. header may be longer than two
// slots; if it is shorter, the error is ErrTruncatedHeader. Without a valid slot the
// error is that of each slot.
func NewestSlot(header []byte, slotSize int) (s Slot, index int, err error) {
	if !isSlotSize(slotSize) {
		return Slot{}, 0, fmt.Errorf("%w: %d bytes", ErrSlotSize, slotSize)
	}
	if len(header) < 2*slotSize {
		return Slot{}, 0, ErrTruncatedHeader
	}
	first, err0 := DecodeSlot(header[:slotSize])
	second, err1 := DecodeSlot(header[slotSize : 2*slotSize])
	switch {
	case errors.Is(err0, ErrNewerVersion):
		return Slot{}, 0, err0
	case errors.Is(err1, ErrNewerVersion):
		return Slot{}, 1, err1
	case err0 == nil && (err1 != nil || first.Sequence >= second.Sequence):
		return first, 0, nil
	case err1 == nil:
		return second, 1, nil
	case errors.Is(err0, ErrNoSlot):
		return Slot{}, 0, err1
	case errors.Is(err1, ErrNoSlot):
		return Slot{}, 0, err0
	}
	return Slot{}, 0, fmt.Errorf("slot 0: %w; slot 1: %w", err0, err1)
}

func isSlotSize(n int) bool { return n == SmallSlot || n == LargeSlot }

// isWrapped reports whether w may stand in a log line as it is.
func isWrapped(w string) bool {
	for i := range len(w) {
		if w[i] <= ' ' || w[i] > '~' {
			return false
		}
	}
	return w != ""
}
