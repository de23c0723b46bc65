package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
)

// cheap is below what a new volume may have, to keep the tests quick.
var cheap = Params{Time: 1, MemoryKiB: 64, Threads: 1}

func mustCreate(t testing.TB, a *secret.Arena, passphrase string) (*Keyring, Config) {
	t.Helper()
	k, cfg, err := create(a, []byte(passphrase), cheap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k, cfg
}

func mustOpen(t testing.TB, a *secret.Arena, cfg Config, passphrase string) *Keyring {
	t.Helper()
	k, err := Open(a, cfg, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func mustWrap(t testing.TB, k *Keyring, key *secret.Key) keyring.Wrapped {
	t.Helper()
	w, err := k.Wrap(t.Context(), []*secret.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	return w[0]
}

func unwrapOne(t testing.TB, k *Keyring, w keyring.Wrapped) (*secret.Key, error) {
	t.Helper()
	out, err := k.Unwrap(t.Context(), []keyring.Wrapped{w})
	if err != nil {
		return nil, err
	}
	return out[0].Key, out[0].Err
}

func addVersion(t testing.TB, k *Keyring) Config {
	t.Helper()
	var stored Config
	if err := k.AddVersion(func(c Config) error { stored = c; return nil }); err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestContract(t *testing.T) {
	keyringtest.Run(t, func(t *testing.T) keyringtest.Fixture {
		a := secret.NewArena(nil)
		k, _ := mustCreate(t, a, "correct horse")
		other, _ := mustCreate(t, a, "correct horse")
		return keyringtest.Fixture{
			Arena:   a,
			Keyring: k,
			Other:   other,
			Rotate:  func(t *testing.T) { addVersion(t, k) },
		}
	})
}

func TestReopen(t *testing.T) {
	a := secret.NewArena(nil)
	k, cfg := mustCreate(t, a, "correct horse")
	key := a.Random(48)
	w := mustWrap(t, k, key)

	// The config goes through envfs.json.
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var read Config
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(cfg, read) {
		t.Fatalf("config changed by JSON:\n%+v\n%+v", cfg, read)
	}
	if got, err := unwrapOne(t, mustOpen(t, a, read, "correct horse"), w); err != nil || !got.Equal(key) {
		t.Fatalf("reopened: %v", err)
	}
	for _, wrong := range []string{"", "correct hors", "correct horse ", "Correct horse", "correct horse\n"} {
		_, err := Open(a, cfg, []byte(wrong))
		if keyring.Class(err) != keyring.ErrDenied {
			t.Errorf("passphrase %q: %v; want denied", wrong, err)
		}
	}
}

func TestChangePassphrase(t *testing.T) {
	a := secret.NewArena(nil)
	k, old := mustCreate(t, a, "old")
	key := a.Random(48)
	w := mustWrap(t, k, key)
	addVersion(t, k)
	w2 := mustWrap(t, k, key)

	if _, err := k.ChangePassphrase([]byte("new"), cheap); keyring.Class(err) != keyring.ErrConfig {
		t.Fatalf("weak parameters: %v; want refused", err)
	}
	if _, err := k.ChangePassphrase(nil, MinParams()); keyring.Class(err) != keyring.ErrConfig {
		t.Fatalf("empty passphrase: %v; want refused", err)
	}
	cfg, err := k.ChangePassphrase([]byte("new"), MinParams())
	if err != nil {
		t.Fatal(err)
	}
	if string(cfg.Salt) == string(old.Salt) {
		t.Error("the salt was used again")
	}
	reopened := mustOpen(t, a, cfg, "new")
	for _, w := range []keyring.Wrapped{w, w2} {
		if got, err := unwrapOne(t, reopened, w); err != nil || !got.Equal(key) {
			t.Fatalf("after the change: %v", err)
		}
	}
	if _, err := Open(a, cfg, []byte("old")); keyring.Class(err) != keyring.ErrDenied {
		t.Fatalf("old passphrase: %v; want denied", err)
	}
	// A version added later is under the new passphrase.
	addVersion(t, k)
	w3 := mustWrap(t, k, key)
	if _, err := unwrapOne(t, reopened, w3); keyring.Class(err) != keyring.ErrRevoked {
		t.Fatalf("version unknown to the config: %v; want revoked", err)
	}
}

func TestAddVersionStoresFirst(t *testing.T) {
	a := secret.NewArena(nil)
	k, _ := mustCreate(t, a, "p")
	full := errors.New("disk full")
	if err := k.AddVersion(func(Config) error { return full }); !errors.Is(err, full) {
		t.Fatalf("AddVersion: %v; want the store's error", err)
	}
	if v, _ := mustWrap(t, k, a.Random(48)).Version(); v != 1 {
		t.Fatalf("wrapped under version %d, which was not stored", v)
	}
	cfg := addVersion(t, k)
	key := a.Random(48)
	w := mustWrap(t, k, key)
	if v, _ := w.Version(); v != 2 {
		t.Fatalf("wrapped under version %d; want 2", v)
	}
	if got, err := unwrapOne(t, mustOpen(t, a, cfg, "p"), w); err != nil || !got.Equal(key) {
		t.Fatalf("stored config: %v", err)
	}
}

func TestCreateChecksStrength(t *testing.T) {
	a := secret.NewArena(nil)
	for _, p := range []Params{
		{},
		{Time: 1, MemoryKiB: minMemoryNew - 1, Threads: 1},
		{Time: 0, MemoryKiB: minMemoryNew, Threads: 1},
		{Time: 1, MemoryKiB: minMemoryNew, Threads: 0},
		{Time: maxTime + 1, MemoryKiB: minMemoryNew, Threads: 1},
		{Time: 1, MemoryKiB: maxMemoryKiB + 1, Threads: 1},
		{Time: 1, MemoryKiB: minMemoryNew, Threads: maxThreads + 1},
	} {
		if _, _, err := Create(a, []byte("p"), p); keyring.Class(err) != keyring.ErrConfig {
			t.Errorf("%+v: %v; want refused", p, err)
		}
	}
	for _, p := range []Params{DefaultParams(), MinParams()} {
		if err := p.checkStrength(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	if _, _, err := Create(a, nil, MinParams()); keyring.Class(err) != keyring.ErrConfig {
		t.Errorf("empty passphrase: %v; want refused", err)
	}
}

func TestOpenRefusesDamagedConfig(t *testing.T) {
	a := secret.NewArena(nil)
	k, _ := mustCreate(t, a, "p")
	addVersion(t, k)
	good := addVersion(t, k)
	swapped := good.clone()
	swapped.KEKs[0].Wrapped, swapped.KEKs[1].Wrapped = swapped.KEKs[1].Wrapped, swapped.KEKs[0].Wrapped

	for name, c := range map[string]struct {
		change func(*Config)
		want   error
	}{
		"kdf":             {func(c *Config) { c.KDF = "scrypt" }, keyring.ErrCorrupt},
		"no versions":     {func(c *Config) { c.KEKs = nil }, keyring.ErrCorrupt},
		"too many":        {func(c *Config) { c.KEKs = make([]WrappedKEK, maxVersions+1) }, keyring.ErrCorrupt},
		"version zero":    {func(c *Config) { c.KEKs[0].Version = 0 }, keyring.ErrCorrupt},
		"version twice":   {func(c *Config) { c.KEKs[1].Version = 1 }, keyring.ErrCorrupt},
		"descending":      {func(c *Config) { c.KEKs[0].Version, c.KEKs[1].Version = 2, 1 }, keyring.ErrCorrupt},
		"version changed": {func(c *Config) { c.KEKs[2].Version = 9 }, keyring.ErrCorrupt},
		"one of three":    {func(c *Config) { c.KEKs[1].Wrapped = "AAAA" }, keyring.ErrCorrupt},
		"KEKs exchanged":  {func(c *Config) { *c = swapped.clone() }, keyring.ErrCorrupt},
		"salt short":      {func(c *Config) { c.Salt = c.Salt[:minSalt-1] }, keyring.ErrCorrupt},
		"salt long":       {func(c *Config) { c.Salt = make([]byte, maxSalt+1) }, keyring.ErrCorrupt},
		"salt changed":    {func(c *Config) { c.Salt[0] ^= 1 }, keyring.ErrDenied},
		"time changed":    {func(c *Config) { c.Params.Time++ }, keyring.ErrDenied},
		"time zero":       {func(c *Config) { c.Params.Time = 0 }, keyring.ErrCorrupt},
		"time bomb":       {func(c *Config) { c.Params.Time = maxTime + 1 }, keyring.ErrCorrupt},
		"memory bomb":     {func(c *Config) { c.Params.MemoryKiB = maxMemoryKiB + 1 }, keyring.ErrCorrupt},
		"memory too low":  {func(c *Config) { c.Params.MemoryKiB = 7 }, keyring.ErrCorrupt},
		"lanes":           {func(c *Config) { c.Params.Threads = 0 }, keyring.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good.clone()
			c.change(&cfg)
			if _, err := Open(a, cfg, []byte("p")); keyring.Class(err) != c.want {
				t.Fatalf("%v; want class %v", err, c.want)
			}
		})
	}
	mustOpen(t, a, good, "p")
}

// A KEK must not open as a payload, nor a payload as a KEK.
func TestLevelsAreSeparate(t *testing.T) {
	a := secret.NewArena(nil)
	k, cfg := mustCreate(t, a, "p")
	asPayload := keyring.Wrapped("local:v1:" + cfg.KEKs[0].Wrapped)
	if _, err := unwrapOne(t, k, asPayload); keyring.Class(err) != keyring.ErrCorrupt {
		t.Errorf("KEK as payload: %v; want corrupt", err)
	}
	payload := mustWrap(t, k, a.Random(kekSize))
	cfg.KEKs = append(cfg.KEKs, WrappedKEK{Version: 2, Wrapped: strings.TrimPrefix(string(payload), "local:v1:")})
	if _, err := Open(a, cfg, []byte("p")); keyring.Class(err) != keyring.ErrCorrupt {
		t.Errorf("payload as KEK: %v; want corrupt", err)
	}
}

func TestCloseWipes(t *testing.T) {
	a := secret.NewArena(nil)
	k, _ := mustCreate(t, a, "p")
	addVersion(t, k)
	if n := a.Stats().Cells; n != 3 { // two KEKs and the derived key
		t.Fatalf("%d keys in memory; want 3", n)
	}
	k.Close()
	k.Close()
	if n := a.Stats().Cells; n != 0 {
		t.Fatalf("%d keys left after Close", n)
	}
	if _, err := k.Wrap(t.Context(), nil); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("Wrap after Close: %v", err)
	}
	if _, err := k.ChangePassphrase([]byte("x"), MinParams()); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("ChangePassphrase after Close: %v", err)
	}
	if err := k.AddVersion(func(Config) error { return nil }); !errors.Is(err, keyring.ErrClosed) {
		t.Errorf("AddVersion after Close: %v", err)
	}
}

func TestFailuresLeakNoKeys(t *testing.T) {
	a := secret.NewArena(nil)
	_, cfg, err := create(a, []byte("p"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	before := a.Stats().Cells
	if _, err := Open(a, cfg, []byte("wrong")); err == nil {
		t.Fatal("opened")
	}
	if _, _, err := create(a, nil, cheap); err == nil {
		t.Fatal("created")
	}
	if n := a.Stats().Cells; n != before {
		t.Fatalf("%d keys in memory, were %d", n, before)
	}
}

func FuzzOpenConfig(f *testing.F) {
	a := secret.NewArena(nil)
	_, cfg, err := create(a, []byte("p"), cheap)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add([]byte(strings.Replace(string(good), `"time":1`, `"time":64`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var cfg Config
		if json.Unmarshal(b, &cfg) != nil {
			return
		}
		// What passes the bounds may still cost seconds; the bounds are tested above.
		if cfg.Params.MemoryKiB > 256 || cfg.Params.Time > 2 {
			if err := cfg.check(); err == nil && cfg.Params.MemoryKiB > maxMemoryKiB {
				t.Fatal("bounds passed")
			}
			return
		}
		k, err := Open(a, cfg, []byte("p"))
		if err != nil {
			if keyring.Class(err) == nil {
				t.Fatalf("error without a class: %v", err)
			}
			return
		}
		k.Close()
	})
}

func BenchmarkBatch(b *testing.B) {
	a := secret.NewArena(nil)
	k, _ := mustCreate(b, a, "p")
	for _, n := range []int{1, 128} {
		keys := make([]*secret.Key, n)
		for i := range keys {
			keys[i] = a.Random(48)
		}
		b.Run(fmt.Sprintf("wrap-%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Wrap(b.Context(), keys); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "keys/s")
		})
		wrapped, err := k.Wrap(b.Context(), keys)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("unwrap-%d", n), func(b *testing.B) {
			for b.Loop() {
				out, err := k.Unwrap(b.Context(), wrapped)
				if err != nil {
					b.Fatal(err)
				}
				for _, u := range out {
					u.Key.Wipe()
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}
