package volume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

// renewPause is how long a file whose key was refused waits before the key service is asked for it again.
const renewPause = time.Second

// renewTimeout bounds how long one operation on such a file waits for the answer.
const renewTimeout = 5 * time.Second

// fileKey is the key side of a File: the lease that says whether the DEK may still be used, and what was derived from it.
// It is filled before the File is shared and, but for the lease, read-only afterwards; a file that was opened for reading
// while it was empty gets its key when a writer comes (ready tells the others).
type fileKey struct {
	ready   atomic.Bool
	cache   *keyring.Cache
	lease   atomic.Pointer[keyring.Lease]
	wrapped keyring.Wrapped
	id      crypto.ID
	content *crypto.ContentCipher
	mac     *crypto.HeaderMAC

	// onDisk reads the wrapped key that the header has now, "" if that cannot be told. Set before the File is shared.
	onDisk func() keyring.Wrapped
	// rewrapped is what wrapped has become by a rewrap, if the lease is of that. Nil: it is of wrapped.
	rewrapped atomic.Pointer[keyring.Wrapped]

	renewal sync.Mutex // held while a refused key is asked for again
	asked   time.Time  // when that was last done; guarded by renewal
	closed  bool       // guarded by renewal
}

// generate takes a new DEK from the pool.
func (k *fileKey) generate(ctx context.Context, v *Volume) error {
	fresh, err := v.NewKey(ctx)
	if err != nil {
		return err
	}
	return k.adopt(v, fresh)
}

// adopt gives the cache a new DEK and uses it.
func (k *fileKey) adopt(v *Volume, fresh keyring.Fresh) error {
	k.cache = v.cache
	return k.install(v.cache.Adopt(fresh.Wrapped, fresh.Key), fresh.Wrapped)
}

// open unwraps the DEK, or finds it in the cache.
func (k *fileKey) open(ctx context.Context, v *Volume, w keyring.Wrapped) error {
	lease, err := v.cache.Acquire(ctx, w)
	if err != nil {
		return err
	}
	k.cache = v.cache
	return k.install(lease, w)
}

func (k *fileKey) install(lease *keyring.Lease, w keyring.Wrapped) (err error) {
	defer func() {
		if err != nil {
			lease.Release()
		}
	}()
	payload, err := lease.Key()
	if err != nil {
		return err
	}
	dek, id, err := crypto.SplitPayload(payload)
	if err != nil {
		return err
	}
	content, err := crypto.NewContentCipher(dek, id)
	if err != nil {
		return err
	}
	k.lease.Store(lease)
	k.wrapped, k.id, k.content, k.mac = w, id, content, crypto.NewHeaderMAC(dek)
	k.ready.Store(true)
	return nil
}

// check reports whether the key may be used now. A key that the service has refused is asked for again, at most once a
// second, so that a file works again once access was granted again.
func (k *fileKey) check() error {
	err := k.refusal()
	if err == nil || !(errors.Is(err, keyring.ErrDenied) || errors.Is(err, keyring.ErrRevoked)) {
		return err
	}
	return k.renew(err)
}

// refusal returns why the key may not be used, as far as that is known without asking.
func (k *fileKey) refusal() error {
	if !k.ready.Load() {
		return nil
	}
	_, err := k.lease.Load().Key()
	return err
}

// renew asks for a key that was refused with the given error.
func (k *fileKey) renew(refused error) error {
	if !k.renewal.TryLock() {
		return refused // somebody else is asking; this operation does not wait for the answer
	}
	defer k.renewal.Unlock()
	if k.closed || time.Since(k.asked) < renewPause {
		return refused
	}
	ctx, cancel := context.WithTimeout(context.Background(), renewTimeout)
	defer cancel()
	w := k.wrapped
	if now := k.onDisk(); now != "" {
		w = now // a rewrap may have replaced it, and the version of the old one been retired
	}
	lease, err := k.cache.Acquire(ctx, w)
	k.asked = time.Now()
	if err != nil {
		return err
	}
	if !k.isOurs(lease) {
		lease.Release()
		return refused
	}
	k.rewrapped.Store(&w)
	k.lease.Swap(lease).Release()
	return nil
}

// isOurs reports whether a lease is of the key of this file: what stands on disk may have been exchanged.
func (k *fileKey) isOurs(lease *keyring.Lease) bool {
	payload, err := lease.Key()
	if err != nil {
		return false
	}
	_, id, err := crypto.SplitPayload(payload)
	return err == nil && id == k.id
}

// leased returns the wrapped key that the lease is of.
func (k *fileKey) leased() keyring.Wrapped {
	if w := k.rewrapped.Load(); w != nil {
		return *w
	}
	return k.wrapped
}

// close lets go of the key. That the file is gone means that nobody will want its key again.
func (k *fileKey) close(gone bool) {
	k.renewal.Lock()
	defer k.renewal.Unlock()
	k.closed = true
	if k.ready.Swap(false) {
		k.mac.Wipe()
		if lease := k.lease.Load(); gone {
			lease.Retire()
		} else {
			lease.Release()
		}
	}
}
