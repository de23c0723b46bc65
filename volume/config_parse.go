package volume

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/envfs/envfs/crypto"
)

// parseConfig reads the bytes of an envfs.json. Its errors are ErrNewerFormat
// or ErrDamagedConfig. What it accepts is well-formed and within bounds, not
// authenticated.
func parseConfig(data []byte) (*Config, error) {
	if len(data) > maxConfigSize {
		return nil, damaged("larger than %d bytes", maxConfigSize)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return nil, damaged("%v", err)
	}
	if err := checkFormat(data); err != nil {
		return nil, err
	}
	c, err := decodeStrictly(compact.Bytes())
	if err != nil {
		return nil, err
	}
	sum, err := c.checksum()
	if err != nil {
		return nil, damaged("%v", err)
	}
	if sum != c.Checksum {
		return nil, damaged("checksum does not match")
	}
	return c, c.check()
}

// checkFormat comes before everything else: a newer version may have changed
// whatever the rest of the parser insists on.
func checkFormat(data []byte) error {
	var probe struct {
		Format *int64 `json:"format"`
	}
	if err := json.Unmarshal(data, &probe); err != nil {
		return damaged("%v", err)
	}
	switch {
	case probe.Format == nil:
		return damaged("no format number")
	case *probe.Format > Format:
		return fmt.Errorf("%w: format %d, this version reads up to %d", ErrNewerFormat, *probe.Format, Format)
	case *probe.Format < 1:
		return damaged("format %d", *probe.Format)
	}
	return nil
}

// decodeStrictly decodes JSON without white space. The decoder of the standard
// library forgives repeated fields and the case of letters; comparing with our
// own encoding of what it understood does not.
func decodeStrictly(compact []byte) (*Config, error) {
	if err := refuseDuplicates(json.NewDecoder(bytes.NewReader(compact))); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(compact))
	dec.DisallowUnknownFields()
	c := new(Config)
	if err := dec.Decode(c); err != nil {
		return nil, damaged("%v", err)
	}
	again, err := c.encodeJSON("")
	if err != nil {
		return nil, damaged("%v", err)
	}
	if !bytes.Equal(again, compact) {
		return nil, damaged("not in the form envfs writes")
	}
	return c, nil
}

// refuseDuplicates reads one value and fails if any object in it, the keyring
// sections included, has a field twice. The value must be known to be valid.
func refuseDuplicates(dec *json.Decoder) error {
	token, err := dec.Token()
	if err != nil {
		return damaged("%v", err)
	}
	opening, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if opening == '{' {
			key, err := dec.Token()
			if err != nil {
				return damaged("%v", err)
			}
			name, _ := key.(string)
			if seen[name] {
				return damaged("field %q stands twice", name)
			}
			seen[name] = true
		}
		if err := refuseDuplicates(dec); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing bracket
		return damaged("%v", err)
	}
	return nil
}

// check holds every field against its bounds.
func (c *Config) check() error {
	switch {
	case c.Format != Format:
		return damaged("format %d", c.Format)
	case c.SlotSize != crypto.SmallSlot && c.SlotSize != crypto.LargeSlot:
		return damaged("slot size %d", c.SlotSize)
	case c.Names != NamesEncrypted && c.Names != NamesPlaintext:
		return damaged("names %q", c.Names)
	case c.VolumeID == crypto.ID{}:
		return damaged("no volume ID")
	}
	w := string(c.WrappedVolumeKey)
	if len(w) == 0 || len(w) > crypto.MaxWrapped(c.SlotSize) {
		return damaged("wrapped volume key of %d bytes", len(w))
	}
	if !onlyBytes(w, wrappedBytes) {
		return damaged("wrapped volume key has bytes that no key service writes")
	}
	if err := c.Keyring.check(); err != nil {
		return damaged("%v", err)
	}
	return nil
}

const (
	letters      = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	wrappedBytes = letters + ":+/=-_."
	keyNameBytes = letters + "_.-"
	mountBytes   = keyNameBytes + "~+@"

	maxVaultName = 512
)

// check refuses what envfs does not write. Mount and key become parts of
// request paths to Vault: nothing passes that could make them another request.
func (r KeyringRef) check() error {
	switch r.Type {
	case KeyringLocal:
		if r.Vault != nil || len(r.Local) == 0 || r.Local[0] != '{' || len(r.Local) > maxLocalSize {
			return errors.New("keyring section of the wrong kind or size")
		}
		return nil
	case KeyringVault:
		if r.Vault == nil || r.Local != nil {
			return errors.New("keyring section of the wrong kind")
		}
		return r.Vault.check()
	}
	return fmt.Errorf("unknown keyring type %q", r.Type)
}

func (v VaultRef) check() error {
	if len(v.Mount) > maxVaultName || len(v.Key) > maxVaultName {
		return errors.New("name of Transit mount or key too long")
	}
	if !goodSegment(v.Key, keyNameBytes) {
		return fmt.Errorf("%q cannot be the name of a Transit key", v.Key)
	}
	for segment := range strings.SplitSeq(v.Mount, "/") {
		if !goodSegment(segment, mountBytes) {
			return fmt.Errorf("%q cannot be the path of a Transit mount", v.Mount)
		}
	}
	return nil
}

func goodSegment(s, allowed string) bool {
	return s != "" && s != "." && s != ".." && onlyBytes(s, allowed)
}

func onlyBytes(s, allowed string) bool {
	return strings.TrimLeft(s, allowed) == ""
}
