package volume

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// testKeyring wraps keys with AES-256-GCM under a key that other processes of a
// test can have too.
type testKeyring struct {
	aead    cipher.AEAD
	arena   *secret.Arena
	padding string // follows each wrapped key, as a longer kind of key would
	err     error  // of every request
}

func newTestKeyring() *testKeyring { return testKeyringFrom([32]byte{1, 2, 3}) }

func testKeyringFrom(key [32]byte) *testKeyring {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return &testKeyring{aead: aead, arena: secret.NewArena(nil)}
}

func randomTestKeyring() *testKeyring {
	var key [32]byte
	rand.Read(key[:])
	return testKeyringFrom(key)
}

func (k *testKeyring) Wrap(_ context.Context, keys []*secret.Key) ([]keyring.Wrapped, error) {
	if k.err != nil {
		return nil, k.err
	}
	var wrapped []keyring.Wrapped
	for _, key := range keys {
		sealed := k.aead.Seal(nil, nil, key.Bytes(), nil)
		text := "test:v7:" + encode64(sealed) + k.padding
		wrapped = append(wrapped, keyring.Wrapped(text))
	}
	return wrapped, nil
}

func (k *testKeyring) Unwrap(_ context.Context, wrapped []keyring.Wrapped) ([]keyring.Unwrapped, error) {
	if k.err != nil {
		return nil, k.err
	}
	answers := make([]keyring.Unwrapped, len(wrapped))
	for i, w := range wrapped {
		answers[i].Key, answers[i].Err = k.open(string(w))
	}
	return answers, nil
}

func (k *testKeyring) open(w string) (*secret.Key, error) {
	text, ok := strings.CutPrefix(strings.TrimSuffix(w, k.padding), "test:v7:")
	sealed, err := base64.StdEncoding.Strict().DecodeString(text)
	if !ok || err != nil {
		return nil, fmt.Errorf("not of this keyring: %w", keyring.ErrCorrupt)
	}
	plain, err := k.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrCorrupt, err)
	}
	return k.arena.Take(plain), nil
}

// localRef is a keyring section as an embedded keyring could have one.
func localRef(note string) KeyringRef {
	section, err := json.Marshal(map[string]string{"kdf": "none", "note": note})
	if err != nil {
		panic(err)
	}
	return KeyringRef{Type: KeyringLocal, Local: section}
}

func initOptions(kr *testKeyring, o InitOptions) InitOptions {
	o.Keyring, o.Arena = kr, kr.arena
	if o.Ref.Type == "" {
		o.Ref = localRef("first")
	}
	return o
}

// initVolume makes a volume in a new directory.
func initVolume(t testing.TB, kr *testKeyring, o InitOptions) (dir string, cfg *Config) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cipher")
	cfg, err := Init(t.Context(), dir, initOptions(kr, o))
	if err != nil {
		t.Fatal(err)
	}
	return dir, cfg
}

// openVolume reads the config and opens the volume with it.
func openVolume(ctx context.Context, dir string, kr *testKeyring, o OpenOptions) (*Volume, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	o.Arena = kr.arena
	o.Pool.Size = 1
	return Open(ctx, dir, cfg, kr, o)
}

// mustOpen opens the volume until the end of the test.
func mustOpen(t testing.TB, dir string, kr *testKeyring, o OpenOptions) *Volume {
	t.Helper()
	v, err := openVolume(t.Context(), dir, kr, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("closing the volume: %v", err)
		}
	})
	return v
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// listDir gives the names in dir, sorted.
func listDir(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func wrapOne(t testing.TB, kr *testKeyring, key *secret.Key) keyring.Wrapped {
	t.Helper()
	wrapped, err := kr.Wrap(t.Context(), []*secret.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	return wrapped[0]
}
