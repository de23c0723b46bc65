package volume

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

const (
	// ConfigName is the file in the root of a ciphertext directory that makes
	// it a volume.
	ConfigName = "envfs.json"
	// Format is the newest format this version reads, and the one it writes.
	Format = 1

	maxConfigSize = 64 << 10
	maxLocalSize  = 32 << 10 // of the local keyring section, compact
)

// NameMode says how names are stored.
type NameMode string

// The name modes.
const (
	NamesEncrypted NameMode = "encrypted"
	NamesPlaintext NameMode = "plaintext"
)

// Keyring types of a KeyringRef.
const (
	KeyringLocal = "local"
	KeyringVault = "vault"
)

// KeyringRef is what a volume says about its key service: never secret, and
// never where it is, since who may write to the ciphertext directory could
// then send a mount to a server of his own.
type KeyringRef struct {
	Type  string          `json:"type"`            // KeyringLocal or KeyringVault
	Local json.RawMessage `json:"local,omitempty"` // a JSON object only keyring/local understands
	Vault *VaultRef       `json:"vault,omitempty"`
}

// VaultRef names a Transit key.
type VaultRef struct {
	Mount string `json:"mount"` // path of the secrets engine, without a slash at the ends
	Key   string `json:"key"`
}

// Config is an envfs.json; its order of fields is the canonical one. As long as
// no volume key was used on it, nothing in it is authenticated. It is not
// changed once it was read.
type Config struct {
	Format           int             `json:"format"`
	VolumeID         crypto.ID       `json:"volume_id"`
	SlotSize         int             `json:"slot_size"` // bytes: 512 or 1024
	Names            NameMode        `json:"names"`
	Keyring          KeyringRef      `json:"keyring"`
	WrappedVolumeKey keyring.Wrapped `json:"wrapped_volume_key,omitempty"`
	MAC              Sum             `json:"mac,omitzero"`
	Checksum         Sum             `json:"checksum,omitzero"`
}

// Sum is a SHA-256 or HMAC-SHA256, in JSON as lower-case hexadecimal digits.
type Sum [sha256.Size]byte

// MarshalText gives 64 lower-case hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, s[:]), nil
}

// UnmarshalText reads 64 hexadecimal digits.
func (s *Sum) UnmarshalText(text []byte) error {
	return decodeHex(s[:], string(text))
}

// decodeHex fills to from exactly as many hexadecimal digits.
func decodeHex(to []byte, text string) error {
	if len(text) != hex.EncodedLen(len(to)) {
		return fmt.Errorf("%d digits instead of %d", len(text), hex.EncodedLen(len(to)))
	}
	_, err := hex.Decode(to, []byte(text))
	return err
}

// encodeJSON writes c with the given indent; none gives the canonical form.
func (c *Config) encodeJSON(indent string) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(c); err != nil {
		return nil, err
	}
	if indent == "" {
		return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
	}
	return buf.Bytes(), nil
}

// authenticated gives the bytes that the MAC covers.
func (c *Config) authenticated() ([]byte, error) {
	part := *c
	part.WrappedVolumeKey, part.MAC, part.Checksum = "", Sum{}, Sum{}
	return part.encodeJSON("")
}

// checksum computes the checksum c should carry.
func (c *Config) checksum() (Sum, error) {
	part := *c
	part.Checksum = Sum{}
	b, err := part.encodeJSON("")
	return sha256.Sum256(b), err
}

// seal computes MAC and checksum of c.
func (c *Config) seal(mac *crypto.ConfigMAC) error {
	msg, err := c.authenticated()
	if err != nil {
		return err
	}
	c.MAC = mac.Sum(msg)
	c.Checksum, err = c.checksum()
	return err
}

// verify authenticates c; anything but success is ErrForgedConfig.
func (c *Config) verify(mac *crypto.ConfigMAC) error {
	msg, err := c.authenticated()
	if err != nil {
		return err
	}
	if err := mac.Verify(msg, c.MAC[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrForgedConfig, err)
	}
	return nil
}

// encode gives the bytes of envfs.json. It writes nothing that parseConfig
// would refuse.
func (c *Config) encode() ([]byte, error) {
	data, err := c.encodeJSON("  ")
	if err != nil {
		return nil, err
	}
	if _, err := parseConfig(data); err != nil {
		return nil, fmt.Errorf("refusing to write: %v", err) // not damage that is there
	}
	return data, nil
}
