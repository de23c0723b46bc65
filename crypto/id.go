package crypto

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/envfs/envfs/internal/secret"
)

// ID names a volume or a file: 16 random bytes, fixed for its life.
type ID [16]byte

// ErrMalformedID says that a text is not 32 lower-case hexadecimal digits.
var ErrMalformedID = errors.New("malformed ID")

// ErrPayloadSize says that an unwrapped payload is not PayloadSize bytes.
var ErrPayloadSize = errors.New("unwrapped payload has the wrong size")

// NewID draws an ID from the system's random source.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails: the runtime ends the process instead
	return id
}

// ParseID reads what String wrote, and nothing else, or fails with ErrMalformedID.
func ParseID(text string) (ID, error) {
	var id ID
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != text {
		return ID{}, ErrMalformedID
	}
	copy(id[:], b)
	return id, nil
}

// String returns 32 lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText returns the same as String.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID.
func (id *ID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseID(string(text))
	return err
}

// SplitPayload reads an unwrapped payload, DEK (DEKSize bytes) ‖ ID (16 bytes): for
// a file its DEK and file ID, for a volume the volume key and volume ID. The key
// returned is a view into k, valid until k is wiped. The ID must be compared with
// the one in the header, or in envfs.json, before the key is used.
func SplitPayload(k *secret.Key) (dek []byte, id ID, err error) {
	if k.Len() != PayloadSize {
		return nil, ID{}, fmt.Errorf("%w: %d bytes, not %d", ErrPayloadSize, k.Len(), PayloadSize)
	}
	b := k.Bytes()
	copy(id[:], b[DEKSize:])
	return b[:DEKSize:DEKSize], id, nil
}
