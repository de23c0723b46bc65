package volume

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/envfs/envfs/crypto"
)

// goldenConfigs reads the frozen configs, which were not written by this
// program. Their volume key is goldenKey.
func goldenConfigs(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/config/*.json")
	if err != nil || len(paths) < 2 {
		t.Fatalf("frozen configs are missing: %v, %v", paths, err)
	}
	configs := map[string][]byte{}
	for _, path := range paths {
		if configs[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return configs
}

func goldenKey() []byte {
	key := make([]byte, crypto.DEKSize)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

// TestConfigGolden holds the canonical encoding, MAC and checksum against
// files that an independent program wrote.
func TestConfigGolden(t *testing.T) {
	for name, data := range goldenConfigs(t) {
		c, err := parseConfig(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := c.verify(crypto.NewConfigMAC(goldenKey())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.verify(crypto.NewConfigMAC(make([]byte, crypto.DEKSize))); !errors.Is(err, ErrForgedConfig) {
			t.Errorf("%s under another volume key: %v", name, err)
		}
		again := *c
		if err := again.seal(crypto.NewConfigMAC(goldenKey())); err != nil || !reflect.DeepEqual(&again, c) {
			t.Errorf("%s sealed again: %v, %+v", name, err, again)
		}
		encoded, err := c.encode()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := parseConfig(encoded); err != nil || !sameConfig(got, c) {
			t.Errorf("%s encoded and parsed: %v", name, err)
		}
	}
}

func TestConfigGoldenFields(t *testing.T) {
	c, err := parseConfig(goldenConfigs(t)["vault.json"])
	if err != nil {
		t.Fatal(err)
	}
	if c.Format != 1 || c.VolumeID.String() != "404142434445464748494a4b4c4d4e4f" || c.SlotSize != 512 ||
		c.Names != NamesEncrypted || c.Keyring.Type != KeyringVault || c.Keyring.Local != nil ||
		*c.Keyring.Vault != (VaultRef{Mount: "secrets/transit", Key: "docs"}) {
		t.Errorf("parsed: %+v", c)
	}
}

// sameConfig compares what two configs mean: white space in the local section
// means nothing.
func sameConfig(a, b *Config) bool {
	x, errX := a.encodeJSON("")
	y, errY := b.encodeJSON("")
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// TestConfigMACCovers changes each field and looks whether the MAC notices.
func TestConfigMACCovers(t *testing.T) {
	mac := crypto.NewConfigMAC(goldenKey())
	for name, test := range map[string]struct {
		change  func(*Config)
		outside bool
	}{
		"format":      {change: func(c *Config) { c.Format = 2 }},
		"volume ID":   {change: func(c *Config) { c.VolumeID[15] ^= 1 }},
		"slot size":   {change: func(c *Config) { c.SlotSize = 1024 }},
		"names":       {change: func(c *Config) { c.Names = NamesPlaintext }},
		"type":        {change: func(c *Config) { c.Keyring.Type = KeyringLocal }},
		"mount":       {change: func(c *Config) { c.Keyring.Vault = &VaultRef{Mount: "other", Key: "docs"} }},
		"key":         {change: func(c *Config) { c.Keyring.Vault = &VaultRef{Mount: "secrets/transit", Key: "doc"} }},
		"local":       {change: func(c *Config) { c.Keyring.Local = json.RawMessage(`{}`) }},
		"mac":         {change: func(c *Config) { c.MAC[0] ^= 0x80 }},
		"wrapped key": {change: func(c *Config) { c.WrappedVolumeKey += "A" }, outside: true},
		"checksum":    {change: func(c *Config) { c.Checksum[0] ^= 1 }, outside: true},
	} {
		c, err := parseConfig(goldenConfigs(t)["vault.json"])
		if err != nil {
			t.Fatal(err)
		}
		test.change(c)
		if err := c.verify(mac); errors.Is(err, ErrForgedConfig) == test.outside {
			t.Errorf("changed %s: %v", name, err)
		}
	}
}

func TestEncodeRefusesWhatParseRefuses(t *testing.T) {
	c, err := parseConfig(goldenConfigs(t)["vault.json"])
	if err != nil {
		t.Fatal(err)
	}
	c.SlotSize = 4096
	if _, err := c.encode(); err == nil || errors.Is(err, ErrDamagedConfig) {
		t.Errorf("encoding a slot size of 4096: %v", err)
	}
}
