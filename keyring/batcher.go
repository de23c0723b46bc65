package keyring

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/envfs/envfs/internal/secret"
)

// BatcherOptions tune a [Batcher]. Zero values take the defaults.
type BatcherOptions struct {
	Batch    int           // items in one request; default [DefaultBatch]
	Requests int           // requests under way at once; default 4
	Timeout  time.Duration // for one request; default 30 s
}

func (o *BatcherOptions) setDefaults() {
	defaultTo(&o.Batch, DefaultBatch)
	defaultTo(&o.Requests, 4)
	defaultTo(&o.Timeout, 30*time.Second)
}

// Batcher joins concurrent calls of Unwrap into requests of many items. A call
// that finds no request under way goes at once; calls made meanwhile join the
// next request, which goes when the one under way returns or when it is full.
// It is safe for concurrent use.
type Batcher struct {
	kr     Keyring
	opts   BatcherOptions
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	waiting []*call // not yet sent; guarded by mu
	running int     // requests under way; guarded by mu
	closed  bool    // guarded by mu
}

// Unbatched asks for keys by a request of its own for each call, in the goroutine
// of the caller: for a keyring that answers out of memory.
func Unbatched(kr Keyring) Unwrapper { return unbatched{kr} }

type unbatched struct{ kr Keyring }

func (u unbatched) UnwrapAll(ctx context.Context, wrapped []Wrapped) []Unwrapped {
	results, err := unwrapItems(ctx, u.kr, wrapped)
	if err != nil {
		return refuseAll(wrapped, err)
	}
	return results
}

// unwrapItems asks kr and makes sure that there is a result for each item.
func unwrapItems(ctx context.Context, kr Keyring, wrapped []Wrapped) ([]Unwrapped, error) {
	results, err := kr.Unwrap(ctx, wrapped)
	if err != nil || len(results) == len(wrapped) {
		return results, err
	}
	for _, r := range results {
		r.Key.Wipe()
	}
	return nil, &Error{Class: ErrUnreachable, Op: "unwrap", Err: errors.New("wrong number of results")}
}

// call is one caller of Unwrap. The batch that carries it sets result and then
// closes done. Whoever finds the other gone wipes the key.
type call struct {
	wrapped Wrapped
	done    chan struct{}
	result  Unwrapped // guarded by Batcher.mu
	gone    bool      // the caller has left; guarded by Batcher.mu
	batch   *batch    // the request that carries it, or nil; guarded by Batcher.mu
}

// batch is one request under way.
type batch struct {
	calls  []*call
	live   int // callers still there; guarded by Batcher.mu
	cancel context.CancelFunc
}

// NewBatcher makes a batcher over kr.
func NewBatcher(kr Keyring, opts BatcherOptions) *Batcher {
	opts.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Batcher{kr: kr, opts: opts, ctx: ctx, cancel: cancel}
}

var _ Unwrapper = (*Batcher)(nil)

// Unwrap is UnwrapAll for one key.
func (b *Batcher) Unwrap(ctx context.Context, w Wrapped) (*secret.Key, error) {
	u := b.UnwrapAll(ctx, []Wrapped{w})[0]
	return u.Key, u.Err
}

// UnwrapAll unwraps keys, in one request as far as they fit, with those of other
// callers. If ctx ends it returns at once and leaves the others unharmed.
func (b *Batcher) UnwrapAll(ctx context.Context, wrapped []Wrapped) []Unwrapped {
	if ctx.Err() != nil {
		return refuseAll(wrapped, ContextError(ctx, "unwrap"))
	}
	calls := make([]*call, len(wrapped))
	for i, w := range wrapped {
		calls[i] = &call{wrapped: w, done: make(chan struct{})}
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return refuseAll(wrapped, ErrClosed)
	}
	b.waiting = append(b.waiting, calls...)
	b.send()
	b.mu.Unlock()

	results := make([]Unwrapped, len(wrapped))
	for i, c := range calls {
		select {
		case <-c.done:
			results[i] = c.result
		case <-ctx.Done():
			b.leave(c)
			results[i].Err = ContextError(ctx, "unwrap")
		}
	}
	return results
}

func refuseAll(wrapped []Wrapped, err error) []Unwrapped {
	results := make([]Unwrapped, len(wrapped))
	for i := range results {
		results[i].Err = err
	}
	return results
}

// send starts requests for what is waiting: one if none is under way, more
// only if they are full. Called with mu held.
func (b *Batcher) send() {
	for len(b.waiting) > 0 && b.running < b.opts.Requests {
		if b.running > 0 && len(b.waiting) < b.opts.Batch {
			return
		}
		n := min(len(b.waiting), b.opts.Batch)
		ctx, cancel := context.WithTimeout(b.ctx, b.opts.Timeout)
		bt := &batch{calls: b.waiting[:n:n], live: n, cancel: cancel}
		b.waiting = append([]*call(nil), b.waiting[n:]...)
		for _, c := range bt.calls {
			c.batch = bt
		}
		b.running++
		b.wg.Go(func() { b.request(ctx, bt) })
	}
}

// request carries out one batch and hands out its results.
func (b *Batcher) request(ctx context.Context, bt *batch) {
	defer bt.cancel()
	wrapped := make([]Wrapped, len(bt.calls))
	for i, c := range bt.calls {
		wrapped[i] = c.wrapped
	}
	results, err := unwrapItems(ctx, b.kr, wrapped)
	if err != nil && b.ctx.Err() != nil {
		err = ErrClosed
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for i, c := range bt.calls {
		if err != nil {
			c.result = Unwrapped{Err: err}
		} else if c.result = results[i]; c.gone {
			c.result.Key.Wipe()
		}
		close(c.done)
	}
	b.running--
	b.send()
}

// leave takes a caller out: out of the queue, or out of its batch, whose
// request is given up when all its callers have left.
func (b *Batcher) leave(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-c.done: // the result came at the same moment
		c.result.Key.Wipe()
		return
	default:
	}
	c.gone = true
	if c.batch != nil {
		if c.batch.live--; c.batch.live == 0 {
			c.batch.cancel()
		}
		return
	}
	for i, w := range b.waiting {
		if w == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			return
		}
	}
}

// Close gives up what is under way and waits for its end. Callers get
// [ErrClosed].
func (b *Batcher) Close() {
	b.mu.Lock()
	b.closed = true
	for _, c := range b.waiting {
		c.result = Unwrapped{Err: ErrClosed}
		close(c.done)
	}
	b.waiting = nil
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
}
