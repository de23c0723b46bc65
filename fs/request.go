package fs

import (
	"context"
	"sync"
	"time"
)

// request is the context of one request: it ends when the caller is interrupted, or when somebody has waited for too long.
// The timer is made when somebody first waits, since it costs a goroutine: most opens find their key at hand.
type request struct {
	context.Context // has no end
	cancel          <-chan struct{}
	patience        time.Duration

	mu      sync.Mutex
	waiting context.Context    // made by Done; guarded by mu
	stop    context.CancelFunc // of waiting; guarded by mu
}

// newRequest returns the context of a request that the kernel interrupts through cancel. end must be called.
func newRequest(cancel <-chan struct{}, patience time.Duration) *request {
	return &request{Context: context.Background(), cancel: cancel, patience: patience}
}

// Done is asked for by whoever is about to wait.
func (r *request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting, r.stop = context.WithTimeout(interruptible{r.Context, r.cancel}, r.patience)
	}
	return r.waiting.Done()
}

// Deadline is that of a wait that has begun.
func (r *request) Deadline() (deadline time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		return time.Time{}, false
	}
	return r.waiting.Deadline()
}

// Err does not begin to wait.
func (r *request) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		return interruptible{r.Context, r.cancel}.Err()
	}
	return r.waiting.Err()
}

// end lets go of the timer.
func (r *request) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
	}
}

// interruptible ends when the caller is interrupted.
type interruptible struct {
	context.Context
	cancel <-chan struct{}
}

func (i interruptible) Done() <-chan struct{} { return i.cancel }

func (i interruptible) Err() error {
	select {
	case <-i.cancel:
		return context.Canceled
	default:
		return nil
	}
}
