package integration

import (
	"crypto/sha256"
	"encoding/binary"
)

// graft replaces the wrapped key of a header slot by that of another, as somebody could who may write the ciphertext
// directory: with a right checksum (doc/format.md, 5.1).
func graft(slot, donor []byte) {
	const lengthAt, wrappedAt = 20, 22
	n := wrappedAt + int(binary.BigEndian.Uint16(donor[lengthAt:]))
	clear(slot[lengthAt : slotSize-96])
	copy(slot[lengthAt:], donor[lengthAt:n])
	sum := sha256.Sum256(slot[:slotSize-16])
	copy(slot[slotSize-16:], sum[:16])
}
