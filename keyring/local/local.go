// Package local is a keyring for one machine without a key service: a
// passphrase opens it.
//
// # Keys
//
// Argon2id turns the passphrase and a random salt into a 32-byte key, which
// wraps the volume's key-encryption keys (KEKs). A KEK is 32 random bytes with a
// version number; the newest one wraps the payloads that [Keyring.Wrap] is
// given, the older ones still unwrap. So a new passphrase touches nothing but
// the [Config], and a new KEK version moves wrapped keys by [Keyring.Rewrap]
// without touching file contents.
//
// # Layout
//
// Both levels are XAES-256-GCM with a random 24-byte nonce, written as standard
// base64 of nonce ‖ ciphertext ‖ tag:
//
//	a payload          local:v<version>:<base64>   associated data "envfs local wrap v1"
//	a KEK, in Config   <base64>                    associated data "envfs local kek v1 ‖ uint32 version"
//
// The label keeps one from passing for the other, and a KEK's version is bound
// to it. That a wrapped payload opens only under the KEK that made it binds
// its version.
//
// Config is not authenticated as a whole, and need not be: parameters and salt
// that someone changed derive a key that opens nothing. What they may cost is
// bounded before anything is allocated.
package local

import (
	"context"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"maps"
	"sync"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

const (
	service   = "local"
	wrapLabel = "envfs local wrap v1"
	kekSize   = 32
)

// Keyring is an opened local keyring. It is safe for concurrent use.
type Keyring struct {
	arena *secret.Arena

	// mu guards all below. Wrapping holds it shared for as long as it uses a
	// KEK, so that Close wipes none in use.
	mu     sync.RWMutex
	config Config
	derive *secret.Key // the key derived from the passphrase
	keks   map[int]*kek
	newest int // the highest version
	closed bool
}

// kek is one version of the key-encryption key, ready for use.
type kek struct {
	key  *secret.Key
	aead cipher.AEAD
}

var (
	_ keyring.Keyring       = (*Keyring)(nil)
	_ keyring.Rewrapper     = (*Keyring)(nil)
	_ keyring.VersionReader = (*Keyring)(nil)
)

// Create makes a keyring with one KEK under a passphrase, and the config that
// opens it again. The passphrase stays the caller's to wipe. Parameters below
// [MinParams] or beyond what [Open] accepts are refused with [keyring.ErrConfig].
func Create(a *secret.Arena, passphrase []byte, p Params) (*Keyring, Config, error) {
	if err := p.checkStrength(); err != nil {
		return nil, Config{}, err
	}
	return create(a, passphrase, p)
}

// create is Create for parameters of any strength.
func create(a *secret.Arena, passphrase []byte, p Params) (*Keyring, Config, error) {
	k := &Keyring{arena: a, keks: make(map[int]*kek)}
	if err := k.addKEK(1, a.Random(kekSize)); err != nil {
		return nil, Config{}, err
	}
	cfg, err := k.protect(passphrase, p)
	if err != nil {
		k.Close()
		return nil, Config{}, err
	}
	return k, cfg, nil
}

// Open opens the keyring of a config with its passphrase, which stays the
// caller's to wipe. A wrong passphrase is [keyring.ErrDenied]; a config that
// cannot be right is [keyring.ErrCorrupt]. A damaged salt cannot be told from a
// wrong passphrase.
func Open(a *secret.Arena, cfg Config, passphrase []byte) (*Keyring, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	k := &Keyring{arena: a, config: cfg.clone(), keks: make(map[int]*kek)}
	k.derive = cfg.Params.derive(a, passphrase, cfg.Salt)
	if err := k.openKEKs(cfg.KEKs); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// openKEKs opens all versions. If none opens, the passphrase is wrong; if only
// some do, the others are damaged.
func (k *Keyring) openKEKs(wrapped []WrappedKEK) error {
	x, err := crypto.NewXAES(k.derive.Bytes())
	if err != nil {
		return err
	}
	damaged := 0
	for _, w := range wrapped {
		key, err := openKEK(k.arena, x.AEAD(), w)
		if err != nil {
			damaged = w.Version
			continue
		}
		if err := k.addKEK(w.Version, key); err != nil {
			return err
		}
	}
	const op = "open the passphrase keyring"
	switch {
	case len(k.keks) == 0:
		return &keyring.Error{Class: keyring.ErrDenied, Op: op, Err: errPassphrase}
	case damaged != 0:
		return &keyring.Error{Class: keyring.ErrCorrupt, Op: op, Err: fmt.Errorf("key version %d is damaged", damaged)}
	}
	return nil
}

// addKEK takes a KEK over. Called before the keyring is shared, or with mu held.
func (k *Keyring) addKEK(version int, key *secret.Key) error {
	x, err := crypto.NewXAES(key.Bytes())
	if err != nil {
		key.Wipe()
		return err
	}
	k.keks[version] = &kek{key: key, aead: x.AEAD()}
	k.newest = max(k.newest, version)
	return nil
}

// Close wipes the keys. Later calls of the other methods fail.
func (k *Keyring) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.derive.Wipe()
	for kk := range maps.Values(k.keks) {
		kk.key.Wipe()
		kk.aead = nil
	}
	k.keks = nil
}

// Wrap implements [keyring.Keyring].
func (k *Keyring) Wrap(ctx context.Context, keys []*secret.Key) ([]keyring.Wrapped, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if err := k.usable(ctx); err != nil {
		return nil, err
	}
	wrapped := make([]keyring.Wrapped, len(keys))
	for i, key := range keys {
		wrapped[i] = k.wrap(key)
	}
	return wrapped, nil
}

// usable reports why the keyring cannot serve. Called with mu held.
func (k *Keyring) usable(ctx context.Context) error {
	if ctx.Err() != nil {
		return keyring.ContextError(ctx, "passphrase keyring")
	}
	if k.closed {
		return keyring.ErrClosed
	}
	return nil
}

// wrap seals one key under the newest KEK. Called with mu held.
func (k *Keyring) wrap(key *secret.Key) keyring.Wrapped {
	sealed := seal(k.keks[k.newest].aead, key.Bytes(), []byte(wrapLabel))
	return keyring.Wrapped(fmt.Sprintf("%s:v%d:%s", service, k.newest, sealed))
}

// Unwrap implements [keyring.Keyring]. A version that the keyring does not have
// is [keyring.ErrRevoked].
func (k *Keyring) Unwrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Unwrapped, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if err := k.usable(ctx); err != nil {
		return nil, err
	}
	out := make([]keyring.Unwrapped, len(wrapped))
	for i, w := range wrapped {
		out[i].Key, out[i].Err = k.unwrap(w)
	}
	return out, nil
}

// unwrap opens one item. Called with mu held.
func (k *Keyring) unwrap(w keyring.Wrapped) (*secret.Key, error) {
	version, sealed, err := w.Parse(service)
	if err != nil {
		return nil, err
	}
	kek := k.keks[version]
	if kek == nil {
		return nil, &keyring.Error{Class: keyring.ErrRevoked, Op: fmt.Sprintf("unwrap with key version %d", version)}
	}
	return open(k.arena, kek.aead, sealed, []byte(wrapLabel))
}

// Rewrap implements [keyring.Rewrapper].
func (k *Keyring) Rewrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Rewrapped, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if err := k.usable(ctx); err != nil {
		return nil, err
	}
	out := make([]keyring.Rewrapped, len(wrapped))
	for i, w := range wrapped {
		key, err := k.unwrap(w) // also what is current is checked
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Wrapped = w
		if version, _ := w.Version(); version != k.newest {
			out[i].Wrapped = k.wrap(key)
		}
		key.Wipe()
	}
	return out, nil
}

// LatestVersion implements [keyring.VersionReader].
func (k *Keyring) LatestVersion(ctx context.Context) (int, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.newest, k.usable(ctx)
}

// seal encrypts plain under a random nonce and returns base64.
func seal(aead cipher.AEAD, plain, label []byte) string {
	nonce := randomBytes(aead.NonceSize())
	return base64.StdEncoding.EncodeToString(aead.Seal(nonce, nonce, plain, label))
}

// open undoes seal. Errors are of class [keyring.ErrCorrupt].
func open(a *secret.Arena, aead cipher.AEAD, encoded string, label []byte) (*secret.Key, error) {
	corrupt := &keyring.Error{Class: keyring.ErrCorrupt, Op: "unwrap"}
	sealed, err := base64.StdEncoding.Strict().DecodeString(encoded)
	size := len(sealed) - aead.NonceSize() - aead.Overhead()
	if err != nil || size < 1 || size > secret.MaxSize {
		return nil, corrupt
	}
	nonce := sealed[:aead.NonceSize()]
	plain, err := aead.Open(make([]byte, 0, size), nonce, sealed[len(nonce):], label)
	if err != nil {
		return nil, corrupt
	}
	return a.Take(plain), nil
}
