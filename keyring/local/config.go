package local

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Config is what a volume keeps of its local keyring. Nothing in it is secret.
type Config struct {
	KDF    string       `json:"kdf"` // "argon2id"
	Params Params       `json:"params"`
	Salt   []byte       `json:"salt"` // base64 in JSON; 16 to 64 bytes
	KEKs   []WrappedKEK `json:"keks"` // ascending versions, at least one
}

// WrappedKEK is one version of the key-encryption key, wrapped under the
// passphrase.
type WrappedKEK struct {
	Version int    `json:"version"` // from 1
	Wrapped string `json:"wrapped"` // base64, see the package comment
}

const (
	kdfName  = "argon2id"
	saltSize = 32

	minSalt     = 16
	maxSalt     = 64
	maxVersions = 1024 // far more than a volume's life needs; bounds the work of Open
	kekLabel    = "envfs local kek v1"
)

// clone returns a copy that shares nothing.
func (c Config) clone() Config {
	c.Salt = slices.Clone(c.Salt)
	c.KEKs = slices.Clone(c.KEKs)
	return c
}

// check refuses what no version of envfs wrote, before any of it is used.
func (c Config) check() error {
	corrupt := func(format string, args ...any) error {
		return &keyring.Error{Class: keyring.ErrCorrupt, Op: "passphrase keyring", Err: fmt.Errorf(format, args...)}
	}
	if c.KDF != kdfName {
		return corrupt("key derivation %q is unknown", c.KDF)
	}
	if err := c.Params.check(); err != nil {
		return corrupt("%w", err)
	}
	if len(c.Salt) < minSalt || len(c.Salt) > maxSalt {
		return corrupt("salt of %d bytes", len(c.Salt))
	}
	if len(c.KEKs) == 0 || len(c.KEKs) > maxVersions {
		return corrupt("%d key versions", len(c.KEKs))
	}
	last := 0
	for _, w := range c.KEKs {
		if w.Version <= last || w.Version > 1<<31-1 {
			return corrupt("key version %d after %d", w.Version, last)
		}
		last = w.Version
	}
	return nil
}

// ChangePassphrase wraps the KEKs under a new passphrase and returns the config
// that opens with it. The old config goes on opening with the old passphrase
// wherever a copy of it is. Parameters are as for [Create].
func (k *Keyring) ChangePassphrase(passphrase []byte, p Params) (Config, error) {
	if err := p.checkStrength(); err != nil {
		return Config{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return Config{}, keyring.ErrClosed
	}
	return k.protect(passphrase, p)
}

// protect derives a key from a passphrase and a new salt and wraps the KEKs
// under it. Called with mu held, or before the keyring is shared.
func (k *Keyring) protect(passphrase []byte, p Params) (Config, error) {
	if len(passphrase) == 0 {
		return Config{}, &keyring.Error{Class: keyring.ErrConfig, Op: "passphrase keyring", Err: errors.New("the passphrase is empty")}
	}
	cfg := Config{KDF: kdfName, Params: p, Salt: randomBytes(saltSize)}
	derived := p.derive(k.arena, passphrase, cfg.Salt)
	for version, kek := range k.keks {
		w, err := sealKEK(derived, version, kek.key)
		if err != nil {
			derived.Wipe()
			return Config{}, err
		}
		cfg.KEKs = append(cfg.KEKs, w)
	}
	slices.SortFunc(cfg.KEKs, func(a, b WrappedKEK) int { return a.Version - b.Version })
	k.derive.Wipe()
	k.derive = derived
	k.config = cfg
	return cfg.clone(), nil
}

// AddVersion makes a new KEK, which wraps from now on. store makes the config
// that holds it durable; wrapping waits meanwhile, so that nothing is ever
// wrapped under a KEK that a power cut could take away. If store fails, so does
// AddVersion, and the keyring stays as it was.
func (k *Keyring) AddVersion(store func(Config) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return keyring.ErrClosed
	}
	if len(k.keks) >= maxVersions {
		return &keyring.Error{Class: keyring.ErrConfig, Op: "add key version", Err: fmt.Errorf("there are %d already", maxVersions)}
	}
	version := k.newest + 1
	key := k.arena.Random(kekSize)
	w, err := sealKEK(k.derive, version, key)
	if err != nil {
		key.Wipe()
		return err
	}
	cfg := k.config.clone()
	cfg.KEKs = append(cfg.KEKs, w)
	if err := store(cfg.clone()); err != nil {
		key.Wipe()
		return err
	}
	k.config = cfg
	return k.addKEK(version, key)
}

// sealKEK wraps a KEK under the key derived from the passphrase.
func sealKEK(derived *secret.Key, version int, key *secret.Key) (WrappedKEK, error) {
	x, err := crypto.NewXAES(derived.Bytes())
	if err != nil {
		return WrappedKEK{}, err
	}
	return WrappedKEK{Version: version, Wrapped: seal(x.AEAD(), key.Bytes(), kekAAD(version))}, nil
}

var errPassphrase = errors.New("wrong passphrase")

// openKEK undoes sealKEK.
func openKEK(a *secret.Arena, derived cipher.AEAD, w WrappedKEK) (*secret.Key, error) {
	key, err := open(a, derived, w.Wrapped, kekAAD(w.Version))
	if err == nil && key.Len() != kekSize {
		key.Wipe()
		err = &keyring.Error{Class: keyring.ErrCorrupt}
	}
	return key, err
}

func kekAAD(version int) []byte {
	return binary.BigEndian.AppendUint32([]byte(kekLabel), uint32(version))
}
