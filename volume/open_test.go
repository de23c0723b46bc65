package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

func TestOpen(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{})
	if v.dir != dir || v.cfg.VolumeID != cfg.VolumeID || v.layout.SlotSize != 512 || v.readOnly {
		t.Errorf("opened: %+v", v)
	}
	if v.names == nil || v.links == nil || v.values == nil || v.cache == nil || v.pool == nil || v.lock == nil {
		t.Error("something is missing")
	}
	fresh, err := v.pool.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Key.Wipe()
	if _, id, err := crypto.SplitPayload(fresh.Key); err != nil || id == (crypto.ID{}) {
		t.Errorf("a new key has the file ID %v, %v", id, err)
	}
}

func TestOpenModes(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{PlaintextNames: true})
	for _, o := range []OpenOptions{{ReadOnly: true}, {Unlocked: true}} {
		v := mustOpen(t, dir, kr, o)
		if v.names != nil || v.pool != nil || v.readOnly != o.ReadOnly || (v.lock == nil) != o.Unlocked {
			t.Errorf("opened with %+v: %+v", o, v)
		}
	}
}

// TestOpenErrors: each gives back the lock.
func TestOpenErrors(t *testing.T) {
	kr := newTestKeyring()
	dir, good := initVolume(t, kr, InitOptions{})
	_, other := initVolume(t, kr, InitOptions{})
	denying := newTestKeyring()
	denying.err = keyring.ErrDenied
	write := func(change func(*Config)) []byte {
		c := *good
		change(&c)
		return forged(t, &c)
	}
	for name, test := range map[string]struct {
		data  []byte
		kr    *testKeyring
		class error
	}{
		"denied":                     {forged(t, good), denying, keyring.ErrDenied},
		"another keyring":            {forged(t, good), randomTestKeyring(), keyring.ErrCorrupt},
		"names switched off":         {write(func(c *Config) { c.Names = NamesPlaintext }), kr, ErrForgedConfig},
		"another keyring section":    {write(func(c *Config) { c.Keyring = localRef("evil") }), kr, ErrForgedConfig},
		"another Transit key":        {write(func(c *Config) { c.Keyring = KeyringRef{Type: KeyringVault, Vault: &VaultRef{"t", "k"}} }), kr, ErrForgedConfig},
		"another volume's key":       {write(func(c *Config) { c.WrappedVolumeKey = other.WrappedVolumeKey }), kr, ErrForgedConfig},
		"another volume's key, MAC":  {write(func(c *Config) { c.WrappedVolumeKey, c.MAC = other.WrappedVolumeKey, other.MAC }), kr, ErrForgedConfig},
		"no MAC":                     {write(func(c *Config) { c.MAC = Sum{1} }), kr, ErrForgedConfig},
		"truncated":                  {forged(t, good)[:200], kr, ErrDamagedConfig},
		"newer":                      {[]byte(`{"format":2}`), kr, ErrNewerFormat},
		"volume key of another ID":   {write(func(c *Config) { wrapForeign(t, kr, c) }), kr, ErrForgedConfig},
		"no payload for this volume": {write(func(c *Config) { c.WrappedVolumeKey = wrapShort(t, kr) }), kr, ErrForgedConfig},
	} {
		writeFile(t, filepath.Join(dir, ConfigName), string(test.data))
		v, err := Open(t.Context(), dir, good, test.kr, OpenOptions{Arena: kr.arena})
		if v != nil || !errors.Is(err, test.class) || !strings.Contains(err.Error(), filepath.Join(dir, ConfigName)) {
			t.Errorf("%s: %v; want %v with the path", name, err, test.class)
		}
		if got := readFile(t, filepath.Join(dir, ConfigName)); got != string(test.data) {
			t.Errorf("%s: the config was changed", name)
		}
	}
	writeFile(t, filepath.Join(dir, ConfigName), string(forged(t, good)))
	mustOpen(t, dir, kr, OpenOptions{})
}

// wrapShort wraps a key that is shorter than any payload.
func wrapShort(t *testing.T, kr *testKeyring) keyring.Wrapped {
	key := kr.arena.Random(32)
	defer key.Wipe()
	return wrapOne(t, kr, key)
}

// wrapForeign seals c with a volume key that was wrapped for another volume, as
// somebody could who knows the volume key of one of his own.
func wrapForeign(t *testing.T, kr *testKeyring, c *Config) {
	payload := newPayload(kr.arena)
	defer payload.Wipe()
	key, _, err := crypto.SplitPayload(payload)
	if err != nil {
		t.Fatal(err)
	}
	c.WrappedVolumeKey = wrapOne(t, kr, payload)
	if err := c.seal(crypto.NewConfigMAC(key)); err != nil {
		t.Fatal(err)
	}
}

// TestOpenAnotherVolumeInPlace: the keyring was chosen by a config that is no
// longer there.
func TestOpenAnotherVolumeInPlace(t *testing.T) {
	kr := newTestKeyring()
	_, cfg := initVolume(t, kr, InitOptions{})
	dir, _ := initVolume(t, kr, InitOptions{})
	if _, err := Open(t.Context(), dir, cfg, kr, OpenOptions{Arena: kr.arena}); err == nil {
		t.Error("opened another volume than the one whose config was read")
	}
}

// TestOpenKeepsDirectory: what is at the path later does not matter.
func TestOpenKeepsDirectory(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
	moved := dir + ".moved"
	if err := errors.Join(os.Rename(dir, moved), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := v.UpdateKeyring(localRef("moved")); err != nil {
		t.Error(err)
	}
	if c, err := ReadConfig(moved); err != nil || note(t, c) != "moved" {
		t.Errorf("the moved volume was not updated: %v", err)
	}
	if got := listDir(t, dir); len(got) != 0 {
		t.Errorf("written to the directory at the old path: %q", got)
	}
}

func TestOpenCancelled(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	kr.err = ctx.Err()
	if _, err := openVolume(ctx, dir, kr, OpenOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("opened with a cancelled context: %v", err)
	}
}

// TestWipes: nothing but derived keys outlives opening and closing.
func TestWipes(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v, err := openVolume(t.Context(), dir, kr, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if used := kr.arena.Stats().Cells; used != 0 {
		t.Errorf("%d keys are left in memory", used)
	}
}
