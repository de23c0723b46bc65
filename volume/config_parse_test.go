package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

func TestParseConfigSyntax(t *testing.T) {
	good := string(goldenConfigs(t)["vault.json"])
	edit := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("the config has no %q", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for name, test := range map[string]struct {
		text  string
		class error
		says  string
	}{
		"empty":                {"", ErrDamagedConfig, "end of JSON"},
		"no JSON":              {"# envfs\n", ErrDamagedConfig, "invalid character"},
		"zeros":                {strings.Repeat("\x00", 600), ErrDamagedConfig, "invalid character"},
		"null":                 {"null", ErrDamagedConfig, "no format"},
		"array":                {"[1]", ErrDamagedConfig, "array"},
		"too large":            {good + strings.Repeat(" ", maxConfigSize), ErrDamagedConfig, "larger than"},
		"trailing data":        {good + "{}", ErrDamagedConfig, "after top-level value"},
		"format missing":       {edit(`"format": 1,`, ``), ErrDamagedConfig, "no format"},
		"format 0":             {edit(`"format": 1,`, `"format": 0,`), ErrDamagedConfig, "format 0"},
		"format 1.5":           {edit(`"format": 1,`, `"format": 1.5,`), ErrDamagedConfig, "format"},
		"format 1e0":           {edit(`"format": 1,`, `"format": 1e0,`), ErrDamagedConfig, "format"},
		"format as text":       {edit(`"format": 1,`, `"format": "1",`), ErrDamagedConfig, "format"},
		"format beyond int64":  {edit(`"format": 1,`, `"format": 99999999999999999999,`), ErrDamagedConfig, "format"},
		"format 2":             {edit(`"format": 1,`, `"format": 2,`), ErrNewerFormat, "format 2"},
		"format 2, new fields": {`{"format": 2, "shards": [1, 2]}`, ErrNewerFormat, "format 2"},
		"unknown field":        {edit(`"names"`, `"shard": 1, "names"`), ErrDamagedConfig, `unknown field "shard"`},
		"unknown vault field":  {edit(`"key"`, `"address": "http://evil", "key"`), ErrDamagedConfig, `unknown field "address"`},
		"field twice":          {edit(`"names"`, `"slot_size": 512, "names"`), ErrDamagedConfig, `"slot_size" stands twice`},
		"field in capitals":    {edit(`"names"`, `"Names"`), ErrDamagedConfig, "not in the form"},
		"escaped field":        {edit(`"names"`, `"\u006eames"`), ErrDamagedConfig, "not in the form"},
		"another order":        {edit(`"format": 1,`, `"slot_size": 512, "format": 1,`), ErrDamagedConfig, "twice"},
		"null section":         {edit(`"type": "vault",`, `"type": "vault", "local": null,`), ErrDamagedConfig, ""},
		"no mac":               {good[:strings.Index(good, `"mac"`)] + good[strings.Index(good, `"checksum"`):], ErrDamagedConfig, "checksum"},
		"short mac":            {edit(`"mac": "`, `"mac": "00`), ErrDamagedConfig, "66 digits"},
		"capital digits":       {edit("4a4b", "4A4B"), ErrDamagedConfig, ""},
		"fullwidth digit":      {edit("4a4b", "4\uff41b"), ErrDamagedConfig, ""},
		"other checksum":       {edit(`"checksum": "`, `"checksum": "0000`)[:len(good)], ErrDamagedConfig, ""},
		"changed value":        {edit(`"key": "docs"`, `"key": "cods"`), ErrDamagedConfig, "checksum does not match"},
		"conflict markers":     {"<<<<<<< ours\n" + good, ErrDamagedConfig, "invalid character"},
		"byte order mark":      {"\ufeff" + good, ErrDamagedConfig, "invalid character"},
		"deep nesting":         {strings.Repeat("[", 60_000), ErrDamagedConfig, ""},
	} {
		c, err := parseConfig([]byte(test.text))
		if c != nil || !errors.Is(err, test.class) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %+v, %v; want %v with %q", name, c, err, test.class, test.says)
		}
	}
}

// forged encodes c with a checksum that fits, as an attacker would.
func forged(t testing.TB, c *Config) []byte {
	t.Helper()
	sum, err := c.checksum()
	if err != nil {
		t.Fatal(err)
	}
	c.Checksum = sum
	data, err := c.encodeJSON("  ")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestParseConfigBounds gives fields values beyond their bounds, with a
// checksum that fits.
func TestParseConfigBounds(t *testing.T) {
	vault := func(mount, key string) func(*Config) {
		return func(c *Config) { c.Keyring.Vault = &VaultRef{Mount: mount, Key: key} }
	}
	local := func(section string) func(*Config) {
		return func(c *Config) { c.Keyring = KeyringRef{Type: KeyringLocal, Local: json.RawMessage(section)} }
	}
	wrapped := func(w string) func(*Config) {
		return func(c *Config) { c.WrappedVolumeKey = keyring.Wrapped(w) }
	}
	for name, test := range map[string]struct {
		change func(*Config)
		ok     bool
	}{
		"unchanged":              {change: func(*Config) {}, ok: true},
		"slot size 1024":         {change: func(c *Config) { c.SlotSize = 1024 }, ok: true},
		"slot size 0":            {change: func(c *Config) { c.SlotSize = 0 }},
		"slot size 511":          {change: func(c *Config) { c.SlotSize = 511 }},
		"slot size 2048":         {change: func(c *Config) { c.SlotSize = 2048 }},
		"slot size -512":         {change: func(c *Config) { c.SlotSize = -512 }},
		"slot size 2^40":         {change: func(c *Config) { c.SlotSize = 1 << 40 }},
		"names":                  {change: func(c *Config) { c.Names = "rot13" }},
		"no names":               {change: func(c *Config) { c.Names = "" }},
		"no volume ID":           {change: func(c *Config) { c.VolumeID = crypto.ID{} }},
		"longest wrapped":        {change: wrapped(strings.Repeat("A", crypto.MaxWrapped(512))), ok: true},
		"wrapped too long":       {change: wrapped(strings.Repeat("A", crypto.MaxWrapped(512)+1))},
		"no wrapped key":         {change: wrapped("")},
		"wrapped with line feed": {change: wrapped("vault:v1:AA\nBB")},
		"wrapped with escape":    {change: wrapped("vault:v1:\x1b[2J")},
		"type":                   {change: func(c *Config) { c.Keyring.Type = "kms" }},
		"no type":                {change: func(c *Config) { c.Keyring.Type = "" }},
		"no vault section":       {change: func(c *Config) { c.Keyring.Vault = nil }},
		"both sections":          {change: func(c *Config) { c.Keyring.Local = json.RawMessage(`{}`) }},
		"key with slash":         {change: vault("transit", "docs/../../sys")},
		"key ..":                 {change: vault("transit", "..")},
		"key with query":         {change: vault("transit", "docs?x")},
		"key with escape":        {change: vault("transit", "docs%2f")},
		"no key":                 {change: vault("transit", "")},
		"longest key":            {change: vault("transit", strings.Repeat("k", maxVaultName)), ok: true},
		"key too long":           {change: vault("transit", strings.Repeat("k", maxVaultName+1))},
		"nested mount":           {change: vault("a/b/c", "docs"), ok: true},
		"mount ..":               {change: vault("transit/../sys", "docs")},
		"mount begins with /":    {change: vault("/transit", "docs")},
		"mount ends with /":      {change: vault("transit/", "docs")},
		"no mount":               {change: vault("", "docs")},
		"mount is an address":    {change: vault("http://evil", "docs")},
		"mount too long":         {change: vault(strings.Repeat("m", maxVaultName+1), "docs")},
		"local section":          {change: local(`{"kdf":"argon2id"}`), ok: true},
		"empty local section":    {change: local(`{}`), ok: true},
		"local is an array":      {change: local(`[]`)},
		"local is null":          {change: local(`null`)},
		"local is a string":      {change: local(`"{}"`)},
		"local twice a field":    {change: local(`{"a":{"b":1,"b":2}}`)},
		"longest local section":  {change: local(`{"a":"` + strings.Repeat("x", maxLocalSize-8) + `"}`), ok: true},
		"local section too long": {change: local(`{"a":"` + strings.Repeat("x", maxLocalSize-7) + `"}`)},
	} {
		c, err := parseConfig(goldenConfigs(t)["vault.json"])
		if err != nil {
			t.Fatal(err)
		}
		test.change(c)
		got, err := parseConfig(forged(t, c))
		if test.ok && (err != nil || !sameConfig(got, c)) {
			t.Errorf("%s: %v", name, err)
		}
		if !test.ok && !errors.Is(err, ErrDamagedConfig) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestParseConfigWhitespace: only white space may differ from what envfs writes.
func TestParseConfigWhitespace(t *testing.T) {
	for name, data := range goldenConfigs(t) {
		want, err := parseConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		var compact, indented bytes.Buffer
		if err := errors.Join(json.Compact(&compact, data), json.Indent(&indented, data, "\r\n", "\t")); err != nil {
			t.Fatal(err)
		}
		for _, text := range [][]byte{compact.Bytes(), indented.Bytes(), append([]byte("\n \t"), data...)} {
			if got, err := parseConfig(text); err != nil || !sameConfig(got, want) {
				t.Errorf("%s as %q: %v", name, text, err)
			}
		}
	}
}

func TestParseConfigTruncated(t *testing.T) {
	for name, data := range goldenConfigs(t) {
		for n := range bytes.TrimSpace(data) {
			if _, err := parseConfig(data[:n]); !errors.Is(err, ErrDamagedConfig) {
				t.Errorf("%s cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

// eachFlip calls f with copies of data in which one byte is another.
func eachFlip(data []byte, f func(at int, flipped []byte)) {
	flipped := bytes.Clone(data)
	for at := range data {
		for _, mask := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255, data[at]} {
			if mask != 0 {
				flipped[at] = data[at] ^ mask
				f(at, flipped)
			}
		}
		flipped[at] = data[at]
	}
}

// TestParseConfigFlips: an accident is an error, or changes white space only.
func TestParseConfigFlips(t *testing.T) {
	for name, data := range goldenConfigs(t) {
		want, err := parseConfig(data)
		if err != nil {
			t.Fatal(err)
		}
		eachFlip(data, func(at int, flipped []byte) {
			c, err := parseConfig(flipped)
			switch {
			case err == nil && !sameConfig(c, want):
				t.Errorf("%s: byte %d as %q changes the config", name, at, flipped[at])
			case err != nil && !errors.Is(err, ErrDamagedConfig) && !errors.Is(err, ErrNewerFormat):
				t.Errorf("%s: byte %d as %q: %v", name, at, flipped[at], err)
			}
		})
	}
}

// TestForgedFlips: with a checksum made to fit, whoever changes a value is
// found out when the volume key is there.
func TestForgedFlips(t *testing.T) {
	kr := newTestKeyring()
	_, cfg := initVolume(t, kr, InitOptions{})
	data, err := cfg.encode()
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	eachFlip(data, func(at int, flipped []byte) {
		var compact bytes.Buffer
		if json.Compact(&compact, flipped) != nil {
			return
		}
		c, err := decodeStrictly(compact.Bytes())
		if err != nil {
			return
		}
		if c, err = parseConfig(forged(t, c)); err != nil {
			return
		}
		v := &Volume{cfg: c}
		err = v.unlock(context.Background(), kr)
		if c.Checksum == cfg.Checksum {
			if err != nil {
				t.Errorf("byte %d as %q changes nothing, and yet: %v", at, flipped[at], err)
			}
			return
		}
		changed++
		if !errors.Is(err, ErrForgedConfig) && !errors.Is(err, keyring.ErrCorrupt) {
			t.Errorf("byte %d as %q: %v", at, flipped[at], err)
		}
	})
	if changed < 500 { // volume ID, wrapped key and MAC alone are more
		t.Errorf("only %d changes reached the volume key", changed)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, data := range goldenConfigs(f) {
		f.Add(data)
		var compact bytes.Buffer
		if err := json.Compact(&compact, data); err != nil {
			f.Fatal(err)
		}
		f.Add(compact.Bytes())
	}
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			if !errors.Is(err, ErrDamagedConfig) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := c.encode()
		if err != nil {
			t.Fatalf("what was parsed cannot be written: %v", err)
		}
		if got, err := parseConfig(again); err != nil || !sameConfig(got, c) {
			t.Fatalf("parsed %s, written %s: %v", data, again, err)
		}
	})
}
