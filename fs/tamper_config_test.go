package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"github.com/envfs/envfs/volume"
)

// configAttack is a row about envfs.json. Each way returns the key service that the changed file leads to.
type configAttack struct {
	name string
	ways []func(c *config) keyring.Keyring
}

// config is a volume whose envfs.json is attacked.
type config struct {
	t     *testing.T
	r     *rig
	old   []byte // envfs.json before the volume key was rewrapped
	other []byte // of another volume of the same key service
}

func (c *config) path() string { return filepath.Join(c.r.cipher, volume.ConfigName) }

func (c *config) read() []byte {
	b, err := os.ReadFile(c.path())
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *config) put(b []byte) keyring.Keyring {
	if err := os.WriteFile(c.path(), b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.r.kr
}

// replace changes text in envfs.json; with forge the checksum is made right.
func (c *config) replace(before, after string, forge bool) keyring.Keyring {
	var compact bytes.Buffer
	if err := json.Compact(&compact, c.read()); err != nil {
		c.t.Fatal(err)
	}
	b := compact.Bytes()
	if bytes.Count(b, []byte(before)) != 1 {
		c.t.Fatalf("%q is not once in %s", before, b)
	}
	b = bytes.Replace(b, []byte(before), []byte(after), 1)
	if forge {
		body, _, _ := bytes.Cut(b, []byte(`,"checksum":"`))
		sum := sha256.Sum256(append(bytes.Clone(body), '}'))
		b = append(bytes.Clone(body), `,"checksum":"`+hex.EncodeToString(sum[:])+`"}`...)
	}
	return c.put(b)
}

// field returns the text of a field of envfs.json.
func field(t *testing.T, b []byte, name string) string {
	var all map[string]any
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all[name].(string)
}

func configAttacks() []configAttack {
	return []configAttack{
		{"`envfs.json` changed", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring { return c.replace(`"encrypted"`, `"plaintext"`, false) },
			func(c *config) keyring.Keyring { b := c.read(); return c.put(b[:len(b)/2]) },
			func(c *config) keyring.Keyring { return c.put(nil) },
		}},
		{"`envfs.json` changed, with a right checksum: names, sizes, volume ID, MAC", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring { return c.replace(`"encrypted"`, `"plaintext"`, true) },
			func(c *config) keyring.Keyring { return c.replace(`"slot_size":512`, `"slot_size":1024`, true) },
			func(c *config) keyring.Keyring {
				return c.replace(field(c.t, c.read(), "volume_id"), "00000000000000000000000000000001", true)
			},
			func(c *config) keyring.Keyring {
				mac := []byte(field(c.t, c.read(), "mac"))
				mac[0] = "10"[mac[0]&1]
				return c.replace(field(c.t, c.read(), "mac"), string(mac), true)
			},
		}},
		{"`envfs.json` naming another Transit key, which the token may use as well", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring {
				c.replace(`"key":"test"`, `"key":"other"`, true)
				other := keyringtest.NewFake(secret.NewArena(nil))
				other.Rotate() // a version as high as that of the right one
				return other
			},
		}},
		{"the wrapped volume key of another volume, with a right checksum", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring {
				return c.replace(field(c.t, c.read(), "wrapped_volume_key"), field(c.t, c.other, "wrapped_volume_key"), true)
			},
		}},
		{"`envfs.json` removed", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring {
				if err := os.Remove(c.path()); err != nil {
					c.t.Fatal(err)
				}
				return c.r.kr
			},
		}},
		{"`envfs.json` put back as it was before a rewrap", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring { return c.put(c.old) },
		}},
		{"`envfs.json` of another volume whose key the token may use", []func(c *config) keyring.Keyring{
			func(c *config) keyring.Keyring { return c.put(c.other) },
		}},
	}
}

// configRows does each attack to a volume of its own.
func configRows(t *testing.T) (rows []string) {
	for _, a := range configAttacks() {
		var seen outcome
		for i, way := range a.ways {
			c := newConfig(t)
			o := c.observe(way(c))
			if i > 0 && o != seen {
				t.Errorf("%s: the ways to do it have different outcomes: %q and %q", a.name, seen, o)
			}
			seen = o
		}
		rows = append(rows, rowOf(a.name, seen))
	}
	return rows
}

func newConfig(t *testing.T) *config {
	t.Helper()
	c := &config{t: t, r: newRig(t, Options{})}
	c.r.write("a", []byte("content"))
	other := newRig(t, Options{}, func(o *rig) { o.kr = c.r.kr })
	other.unmount()
	c.other = (&config{t: t, r: other}).read()
	c.r.unmount()
	c.old = c.read()
	c.r.kr.Rotate()
	if _, err := volume.Rewrap(t.Context(), c.r.cipher, volume.RewrapOptions{Keyring: c.r.kr}); err != nil {
		t.Fatal(err)
	}
	return c
}

// observe mounts the volume, if it can be mounted, and verifies it.
func (c *config) observe(kr keyring.Keyring) outcome {
	cfg, err := volume.ReadConfig(c.r.cipher)
	var v *volume.Volume
	if err == nil {
		o := c.r.open
		o.Unlocked, o.ReadOnly, o.Arena = true, true, secret.NewArena(nil)
		v, err = volume.Open(c.t.Context(), c.r.cipher, cfg, kr, o)
	}
	if err != nil {
		refusal := "the mount is refused: " + c.reason(err)
		return outcome{reader: refusal, verify: "the same"}
	}
	o := outcome{verify: "nothing"}
	for _, said := range verifyDirs(c.t, c.r) {
		o.verify = said // of the only entry there is
	}
	if err := v.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.r.mount()
	defer c.r.unmount()
	got, err := os.ReadFile(c.r.path("a"))
	switch entries, lerr := os.ReadDir(c.r.dir); {
	case lerr != nil:
		c.t.Fatal(lerr)
	case err == nil && string(got) == "content":
		o.reader = undetected + ": all reads as before, while the key service allows the old version"
	case errors.Is(err, os.ErrNotExist) && len(entries) == 0:
		o.reader = "every entry is hidden, and logged"
	default:
		o.reader = undetected + ": " + word(err)
	}
	return o
}

// reason is the class of a refusal.
func (c *config) reason(err error) string {
	for _, class := range []error{volume.ErrDamagedConfig, volume.ErrForgedConfig, volume.ErrNotVolume, keyring.ErrCorrupt} {
		if errors.Is(err, class) {
			return class.Error()
		}
	}
	return err.Error()
}
