package volume

import (
	"errors"
	"sync/atomic"

	"github.com/envfs/envfs/keyring"
)

// engine is what the open files of a volume share.
type engine struct {
	buffers  *buffers
	sealer   *sealer
	journal  *journal
	prefetch *prefetcher // nil where asking for a key costs nothing
	// creations counts the times that an application asked for a directory to become durable. A file created before the
	// count moved may be one whose creation was promised to last, so its first header is synced before its data.
	creations atomic.Int64
	newFiles  newFiles
	// onRefusal is told of keys that the service has refused while files held them.
	onRefusal atomic.Pointer[func(keyring.Wrapped)]
}

func (e *engine) start(v *Volume, o OpenOptions) {
	e.buffers = newBuffers()
	e.journal = newJournal(v, o)
	e.sealer = newSealer(v, o.SealDelay)
	if o.Prefetch {
		e.prefetch = newPrefetcher(v)
	}
}

func (e *engine) stop() error {
	if e.sealer == nil {
		return nil
	}
	if e.prefetch != nil {
		e.prefetch.close()
	}
	return errors.Join(e.sealer.close(), e.journal.close())
}

// SealAll seals every file that is closed and waits for it, as far as the disk allows.
func (v *Volume) SealAll() error { return v.sealer.flush() }

// OnKeyRefused has f called twice for each key that the key service refuses while files hold it: while the key serves for a
// last time, so that what was written can be put away, and once it has been taken away, so that nothing read under it stays
// in anybody's cache.
func (v *Volume) OnKeyRefused(f func(w keyring.Wrapped)) { v.onRefusal.Store(&f) }

func (v *Volume) keyRefused(w keyring.Wrapped, _ error) {
	if f := v.onRefusal.Load(); f != nil {
		(*f)(w)
	}
}
