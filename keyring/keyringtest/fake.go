package keyringtest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Fake is a key service in memory that fails as it is told. Its wrapped keys
// have the form "fake:vN:base64" and are authenticated, so that what another
// Fake wrapped is refused. Delays use the clock of package time, and so pass at
// once within testing/synctest. It is safe for concurrent use.
type Fake struct {
	arena *secret.Arena

	mu       sync.Mutex
	keks     []cipher.AEAD // by version-1; guarded by mu
	oldest   int           // versions below are revoked; guarded by mu
	fault    error         // what each call returns; guarded by mu
	items    map[keyring.Wrapped]error
	delay    time.Duration // of each call; guarded by mu
	counters Counters      // guarded by mu
}

// Counters count what a [Fake] was asked.
type Counters struct {
	Wraps, Unwraps, Rewraps int // calls
	Items                   int // items in all of them
	Largest                 int // items in the largest
	Cancelled               int // calls given up by the caller
}

var (
	_ keyring.Keyring       = (*Fake)(nil)
	_ keyring.Rewrapper     = (*Fake)(nil)
	_ keyring.VersionReader = (*Fake)(nil)
)

// NewFake makes a service with one KEK version.
func NewFake(a *secret.Arena) *Fake {
	f := &Fake{arena: a, oldest: 1, items: make(map[keyring.Wrapped]error)}
	f.Rotate()
	return f
}

// Rotate adds a KEK version and returns its number.
func (f *Fake) Rotate() int {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's size is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keks = append(f.keks, aead)
	return len(f.keks)
}

// RevokeBefore refuses KEK versions below the given one.
func (f *Fake) RevokeBefore(version int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = version
}

// Outage lets each call fail as unreachable.
func (f *Fake) Outage() {
	f.SetFault(&keyring.Error{Class: keyring.ErrUnreachable, Err: errors.New("outage")})
}

// Deny lets each call fail as denied.
func (f *Fake) Deny() {
	f.SetFault(&keyring.Error{Class: keyring.ErrDenied, Err: errors.New("policy")})
}

// Restore ends Outage and Deny.
func (f *Fake) Restore() { f.SetFault(nil) }

// SetFault lets each call fail with err, or none if it is nil.
func (f *Fake) SetFault(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = err
}

// FailItem lets each unwrap and rewrap of one item fail, or not if err is nil.
func (f *Fake) FailItem(w keyring.Wrapped, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items[w] = err
}

// SetDelay lets each call take so long before it does its work or fails.
func (f *Fake) SetDelay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Counters returns a snapshot.
func (f *Fake) Counters() Counters {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counters
}

// ResetCounters sets them to zero.
func (f *Fake) ResetCounters() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counters = Counters{}
}

// begin counts a call, lets its delay pass and returns its fault.
func (f *Fake) begin(ctx context.Context, calls *int, items int) error {
	if ctx.Err() != nil {
		return keyring.ContextError(ctx, "fake")
	}
	f.mu.Lock()
	*calls++
	f.counters.Items += items
	f.counters.Largest = max(f.counters.Largest, items)
	delay := f.delay
	f.mu.Unlock()

	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			f.counters.Cancelled++
			return keyring.ContextError(ctx, "fake")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

// Wrap implements [keyring.Keyring].
func (f *Fake) Wrap(ctx context.Context, keys []*secret.Key) ([]keyring.Wrapped, error) {
	if err := f.begin(ctx, &f.counters.Wraps, len(keys)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	wrapped := make([]keyring.Wrapped, len(keys))
	for i, k := range keys {
		wrapped[i] = f.seal(k)
	}
	return wrapped, nil
}

// seal wraps under the newest version. Called with mu held.
func (f *Fake) seal(k *secret.Key) keyring.Wrapped {
	version := len(f.keks)
	sealed := f.keks[version-1].Seal(nil, nil, k.Bytes(), nil)
	return keyring.Wrapped(fmt.Sprintf("fake:v%d:%s", version, base64.StdEncoding.EncodeToString(sealed)))
}

// Unwrap implements [keyring.Keyring].
func (f *Fake) Unwrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Unwrapped, error) {
	if err := f.begin(ctx, &f.counters.Unwraps, len(wrapped)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]keyring.Unwrapped, len(wrapped))
	for i, w := range wrapped {
		out[i].Key, out[i].Err = f.open(w)
	}
	return out, nil
}

// open unwraps one item. Called with mu held.
func (f *Fake) open(w keyring.Wrapped) (*secret.Key, error) {
	if err := f.items[w]; err != nil {
		return nil, err
	}
	version, encoded, err := w.Parse("fake")
	if err != nil {
		return nil, err
	}
	if version < f.oldest || version > len(f.keks) {
		return nil, &keyring.Error{Class: keyring.ErrRevoked, Op: "unwrap"}
	}
	corrupt := &keyring.Error{Class: keyring.ErrCorrupt, Op: "unwrap"}
	sealed, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, corrupt
	}
	plain, err := f.keks[version-1].Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, corrupt
	}
	return f.arena.Take(plain), nil
}

// Rewrap implements [keyring.Rewrapper].
func (f *Fake) Rewrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Rewrapped, error) {
	if err := f.begin(ctx, &f.counters.Rewraps, len(wrapped)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]keyring.Rewrapped, len(wrapped))
	for i, w := range wrapped {
		key, err := f.open(w)
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Wrapped = w
		if v, _ := w.Version(); v != len(f.keks) {
			out[i].Wrapped = f.seal(key)
		}
		key.Wipe()
	}
	return out, nil
}

// LatestVersion implements [keyring.VersionReader].
func (f *Fake) LatestVersion(ctx context.Context) (int, error) {
	if ctx.Err() != nil {
		return 0, keyring.ContextError(ctx, "fake")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.keks), f.fault
}
