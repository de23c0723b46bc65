package keyring

import (
	"sync/atomic"

	"github.com/envfs/envfs/internal/secret"
)

// Lease is one holder's hold on a key of a [Cache]. It is safe for concurrent
// use.
type Lease struct {
	c        *Cache
	e        *entry
	released atomic.Bool
}

// Key returns the key, or why it may not be used now: the service has refused
// it, or has given no answer for longer than the grace. It is cheap and meant to
// be called for each operation. The key is the cache's: it is valid until
// Release, and not to be wiped.
func (l *Lease) Key() (*secret.Key, error) {
	if l.released.Load() {
		return nil, ErrClosed
	}
	if fault := l.e.fault.Load(); fault != nil {
		return nil, *fault
	}
	return l.e.key, nil
}

// Wrapped returns the wrapped form of the key.
func (l *Lease) Wrapped() Wrapped { return l.e.wrapped }

// Release ends the hold. Further calls do nothing.
func (l *Lease) Release() {
	if l.released.CompareAndSwap(false, true) {
		l.c.release(l.e)
	}
}

// Retire is Release for a key that is not needed any more, because what it encrypts is gone: with the last hold it is wiped.
func (l *Lease) Retire() {
	if l.released.CompareAndSwap(false, true) {
		l.c.retire(l.e)
	}
}
