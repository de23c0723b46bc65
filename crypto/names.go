package crypto

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// MaxName is the longest plaintext name in bytes (NAME_MAX).
const MaxName = 255

const sivSize = 16

// ErrForeignName says that a name in the ciphertext directory is none of this
// volume's.
var ErrForeignName = errors.New("not a name of this volume")

// encoding of names and symlink targets: only letters, digits, '-' and '_', and
// exactly one text for the same bytes. It is immutable.
var encoding = base64.RawURLEncoding.Strict()

// decode accepts what encode gives and nothing else.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // which package base64 skips
		return nil, base64.CorruptInputError(0)
	}
	return encoding.DecodeString(text)
}

// NameCipher encrypts names with AES-256-SIV (RFC 5297, one empty string of
// associated data): the same name gives the same result in the whole volume. It is
// safe for concurrent use.
type NameCipher struct{ siv *subtle.AESSIV }

// NewNameCipher derives the 64-byte SIV key from the volume key.
func NewNameCipher(volumeKey []byte) (*NameCipher, error) {
	if err := checkVolumeKey(volumeKey); err != nil {
		return nil, err
	}
	siv, err := subtle.NewAESSIV(deriveKey(volumeKey, labelNames, subtle.AESSIVKeySize))
	if err != nil {
		return nil, err
	}
	return &NameCipher{siv: siv}, nil
}

// Encrypt returns the encoded name: URL-safe base64 without padding of SIV (16) ‖
// ciphertext. It is longer than MaxStoredName for names beyond 175 bytes and must
// then be stored as StoredName says.
func (c *NameCipher) Encrypt(name string) string {
	sealed, err := c.siv.EncryptDeterministically([]byte(name), nil)
	if err != nil {
		panic(fmt.Sprintf("crypto: encrypting a name: %v", err)) // the key size was checked
	}
	return encoding.EncodeToString(sealed)
}

// Decrypt returns the name of an encoded name, or ErrForeignName if the volume's key
// did not make it or the name could not stand in a directory: empty, ".", "..", with
// '/' or NUL, or longer than MaxName.
func (c *NameCipher) Decrypt(encoded string) (string, error) {
	if len(encoded) > MaxEncodedName {
		return "", ErrForeignName
	}
	sealed, err := decode(encoded)
	if err != nil || len(sealed) <= sivSize {
		return "", ErrForeignName
	}
	plain, err := c.siv.DecryptDeterministically(sealed, nil)
	if err != nil {
		return "", ErrForeignName
	}
	name := string(plain)
	if !isName(name) {
		return "", ErrForeignName
	}
	return name, nil
}

func isName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= MaxName && !strings.ContainsAny(name, "/\x00")
}
