package crypto

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/envfs/envfs/internal/secret"
)

// ValueOverhead is how many bytes a sealed value is longer than the value.
const ValueOverhead = BlockOverhead

const (
	// MaxStoredTarget is the longest symlink target the system stores (PATH_MAX
	// without its NUL).
	MaxStoredTarget = 4095
	// MaxTarget is the longest plaintext target whose encoding still fits.
	MaxTarget = MaxStoredTarget*6/8 - BlockOverhead
)

var (
	// ErrForeignTarget says that a symlink's target is none of this volume's.
	ErrForeignTarget = errors.New("not a symlink of this volume")
	// ErrTargetTooLong says that a symlink's target is longer than MaxTarget
	// (ENAMETOOLONG).
	ErrTargetTooLong = errors.New("symlink target is too long")
	// ErrValueTampered says that an attribute's value is not authentic.
	ErrValueTampered = errors.New("attribute value authentication failed")
	// ErrConfigTampered says that the volume's configuration is not authentic.
	ErrConfigTampered = errors.New("configuration authentication failed")
)

// LinkCipher encrypts symlink targets with XAES-256-GCM and a random nonce. It is
// safe for concurrent use.
type LinkCipher struct{ aead cipher.AEAD }

// NewLinkCipher derives the key from the volume key.
func NewLinkCipher(volumeKey []byte) (*LinkCipher, error) {
	aead, err := newValueAEAD(volumeKey, labelSymlinks)
	if err != nil {
		return nil, err
	}
	return &LinkCipher{aead: aead}, nil
}

// Encrypt returns the target to store: URL-safe base64 without padding of nonce (24)
// ‖ ciphertext ‖ tag (16). It fails with ErrTargetTooLong only.
func (c *LinkCipher) Encrypt(target string) (string, error) {
	if len(target) > MaxTarget {
		return "", ErrTargetTooLong
	}
	return encoding.EncodeToString(sealValue(c.aead, []byte(target), nil)), nil
}

// Decrypt returns the target of a stored one, or ErrForeignTarget if the volume's
// key did not make it or it could not be a target (empty, or with NUL).
func (c *LinkCipher) Decrypt(stored string) (string, error) {
	if len(stored) > MaxStoredTarget {
		return "", ErrForeignTarget
	}
	sealed, err := decode(stored)
	if err != nil {
		return "", ErrForeignTarget
	}
	target, err := openValue(c.aead, sealed, nil)
	if err != nil || len(target) == 0 || strings.Contains(string(target), "\x00") {
		return "", ErrForeignTarget
	}
	return string(target), nil
}

// PlainLen returns the length of the target whose stored form has storedLen bytes
// (a symlink's st_size), and 0 where no target has that length.
func (c *LinkCipher) PlainLen(storedLen int) int {
	size := encoding.DecodedLen(storedLen)
	if encoding.EncodedLen(size) != storedLen {
		return 0
	}
	return max(size-BlockOverhead, 0)
}

// ValueCipher encrypts the values of extended attributes with XAES-256-GCM and a
// random nonce, the attribute's name being associated data. It is safe for
// concurrent use.
type ValueCipher struct{ aead cipher.AEAD }

// NewValueCipher derives the key from the volume key.
func NewValueCipher(volumeKey []byte) (*ValueCipher, error) {
	aead, err := newValueAEAD(volumeKey, labelXattrs)
	if err != nil {
		return nil, err
	}
	return &ValueCipher{aead: aead}, nil
}

// Seal returns nonce (24) ‖ ciphertext ‖ tag (16), ValueOverhead bytes more than
// value. name is the attribute's as the application gave it.
func (c *ValueCipher) Seal(name string, value []byte) []byte {
	return sealValue(c.aead, value, []byte(name))
}

// Open returns the value, or ErrValueTampered if it was not sealed in this volume
// under that name.
func (c *ValueCipher) Open(name string, sealed []byte) ([]byte, error) {
	value, err := openValue(c.aead, sealed, []byte(name))
	if err != nil {
		return nil, ErrValueTampered
	}
	return value, nil
}

func newValueAEAD(volumeKey []byte, l label) (cipher.AEAD, error) {
	if err := checkVolumeKey(volumeKey); err != nil {
		return nil, err
	}
	key := deriveKey(volumeKey, l, DEKSize)
	defer secret.Wipe(key)
	x, err := NewXAES(key)
	if err != nil {
		return nil, err
	}
	return x.AEAD(), nil
}

func sealValue(aead cipher.AEAD, value, additional []byte) []byte {
	sealed := make([]byte, NonceSize, len(value)+ValueOverhead)
	rand.Read(sealed) // never fails: the runtime ends the process instead
	return aead.Seal(sealed, sealed, value, additional)
}

func openValue(aead cipher.AEAD, sealed, additional []byte) ([]byte, error) {
	if len(sealed) < ValueOverhead {
		return nil, fmt.Errorf("sealed value of %d bytes", len(sealed))
	}
	return aead.Open(nil, sealed[:NonceSize], sealed[NonceSize:], additional)
}

// ConfigMAC authenticates the volume's configuration under a key derived from the
// volume key. It is safe for concurrent use.
type ConfigMAC struct{ key []byte }

// NewConfigMAC derives the MAC key; it panics unless the volume key has 32 bytes.
func NewConfigMAC(volumeKey []byte) *ConfigMAC {
	return &ConfigMAC{key: deriveKey(volumeKey, labelConfigMAC, sha256.Size)}
}

// Sum returns HMAC-SHA256 of msg.
func (m *ConfigMAC) Sum(msg []byte) [32]byte {
	h := hmac.New(sha256.New, m.key)
	h.Write(msg)
	return [32]byte(h.Sum(nil))
}

// Verify fails with ErrConfigTampered unless mac is that of msg; it compares in
// constant time.
func (m *ConfigMAC) Verify(msg, mac []byte) error {
	sum := m.Sum(msg)
	if !hmac.Equal(sum[:], mac) {
		return ErrConfigTampered
	}
	return nil
}
