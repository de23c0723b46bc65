package vault_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// clearEnv keeps the developer's own Vault out of the tests.
func clearEnv(t testing.TB) {
	t.Helper()
	for _, name := range []string{"VAULT_ADDR", "VAULT_AGENT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_CLIENT_TIMEOUT"} {
		t.Setenv(name, "")
	}
}

func mustOpen(t testing.TB, o vault.Options) *vault.Keyring {
	t.Helper()
	if o.Arena == nil {
		o.Arena = secret.NewArena(nil)
	}
	k, err := vault.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func newKeys(n int) ([]*secret.Key, *secret.Arena) {
	arena := secret.NewArena(nil)
	keys := make([]*secret.Key, n)
	for i := range keys {
		keys[i] = arena.Random(48)
	}
	return keys, arena
}

func mustWrap(t testing.TB, k *vault.Keyring, n int) ([]*secret.Key, []keyring.Wrapped) {
	t.Helper()
	keys, _ := newKeys(n)
	wrapped, err := k.Wrap(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	return keys, wrapped
}

func TestContract(t *testing.T) {
	clearEnv(t)
	s := vaulttest.Start(t)
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_TOKEN", s.RootToken)
	var serial atomic.Int64
	for name, params := range map[string]map[string]any{
		"default":  nil,
		"chacha20": {"type": "chacha20-poly1305"},
		"derived":  {"derived": true},
		"rsa":      {"type": "rsa-2048"},
	} {
		t.Run(name, func(t *testing.T) {
			keyringtest.Run(t, func(t *testing.T) keyringtest.Fixture {
				key := fmt.Sprintf("%s-%d", name, serial.Add(1))
				s.CreateKey(key, params)
				s.CreateKey(key+"-other", params)
				o := vault.Options{Arena: secret.NewArena(nil), Key: key, Context: []byte("volume ID")}
				k := mustOpen(t, o)
				o.Key += "-other"
				return keyringtest.Fixture{
					Arena:   o.Arena,
					Keyring: k,
					Other:   mustOpen(t, o),
					Rotate:  func(*testing.T) { s.RotateKey(key) },
				}
			})
		})
	}
}

func TestDerivedKeyBindsContext(t *testing.T) {
	clearEnv(t)
	s := vaulttest.Start(t)
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_TOKEN", s.RootToken)
	s.CreateKey("docs", map[string]any{"derived": true})
	one := mustOpen(t, vault.Options{Key: "docs", Context: []byte("volume 1")})
	two := mustOpen(t, vault.Options{Key: "docs", Context: []byte("volume 2")})
	_, wrapped := mustWrap(t, one, 1)
	out, err := two.Unwrap(t.Context(), wrapped)
	if err != nil || keyring.Class(out[0].Err) != keyring.ErrCorrupt {
		t.Fatalf("another volume's key: %v, %v; want corrupt", err, out)
	}
	if _, err := vault.Open(t.Context(), vault.Options{Key: "docs"}); keyring.Class(err) != keyring.ErrConfig {
		t.Fatalf("without a context: %v; want misconfigured", err)
	}
}

func TestKeyInfo(t *testing.T) {
	clearEnv(t)
	s := vaulttest.Start(t)
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_TOKEN", s.RootToken)
	s.CreateKey("docs", map[string]any{"exportable": true, "allow_plaintext_backup": true})
	s.RotateKey("docs")
	s.RotateKey("docs")
	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	k := mustOpen(t, vault.Options{Key: "docs"})
	want := vault.KeyInfo{
		Type: "aes256-gcm96", LatestVersion: 3, MinDecryptionVersion: 2,
		Exportable: true, PlaintextBackup: true, SupportsEncryption: true, SupportsDecryption: true,
	}
	if got, known := k.Info(); !known || got != want {
		t.Fatalf("Info: %+v, %t\nwant  %+v", got, known, want)
	}
	s.RotateKey("docs")
	if got, err := k.LatestVersion(t.Context()); err != nil || got != 4 {
		t.Fatalf("LatestVersion: %d, %v; want 4", got, err)
	}
}

func TestTransports(t *testing.T) {
	for name, o := range map[string]vaulttest.Options{"tls": {TLS: true}, "unix": {Unix: true}} {
		t.Run(name, func(t *testing.T) {
			clearEnv(t)
			s := vaulttest.StartWith(t, o)
			s.CreateKey("docs", nil)
			t.Setenv("VAULT_TOKEN", s.RootToken)
			t.Setenv("VAULT_ADDR", "http://127.0.0.1:1") // the option prevails
			if o.TLS {
				_, err := vault.Open(t.Context(), vault.Options{Key: "docs", Address: s.Address})
				if keyring.Class(err) != keyring.ErrConfig || !strings.Contains(keyring.HintOf(err), "VAULT_CACERT") {
					t.Fatalf("unknown certificate authority: %v; want misconfigured", err)
				}
				t.Setenv("VAULT_CACERT", s.CACert)
			}
			k := mustOpen(t, vault.Options{Key: "docs", Address: s.Address})
			keys, wrapped := mustWrap(t, k, 1)
			out, err := k.Unwrap(t.Context(), wrapped)
			if err != nil || out[0].Err != nil || !out[0].Key.Equal(keys[0]) {
				t.Fatalf("%v, %v", err, out)
			}
		})
	}
}

func BenchmarkBatch(b *testing.B) {
	clearEnv(b)
	s := vaulttest.Start(b)
	s.CreateKey("docs", nil)
	b.Setenv("VAULT_TOKEN", s.RootToken)
	k := mustOpen(b, vault.Options{Key: "docs", Address: s.Address})
	for _, n := range []int{1, 128} {
		keys, wrapped := mustWrap(b, k, n)
		b.Run(fmt.Sprintf("wrap-%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Wrap(b.Context(), keys); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "keys/s")
		})
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
