package keyring

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/envfs/envfs/internal/secret"
)

// ErrClosed is returned by a piece that was closed.
var ErrClosed = errors.New("keyring: closed")

// PoolOptions tune a [Pool]. Zero values take the defaults.
type PoolOptions struct {
	Size     int           // keys held ready; default 256
	LowWater int           // a refill starts below this many; default half of Size
	Batch    int           // keys wrapped in one request; default [DefaultBatch]
	Timeout  time.Duration // for one request; default 30 s
	RetryMin time.Duration // first wait after a failed refill, doubled up to RetryMax; default 500 ms
	RetryMax time.Duration // default 5 s
	MaxAge   time.Duration // after which an unused key is wrapped anew, under the newest KEK version; default 5 min
	Log      *slog.Logger  // default: discard
}

func (o *PoolOptions) setDefaults() {
	defaultTo(&o.Size, 256)
	defaultTo(&o.LowWater, (o.Size+1)/2)
	defaultTo(&o.Batch, DefaultBatch)
	defaultTo(&o.Timeout, 30*time.Second)
	defaultTo(&o.RetryMin, defaultRetryMin)
	defaultTo(&o.RetryMax, defaultRetryMax)
	defaultTo(&o.MaxAge, 5*time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func defaultTo[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Fresh is a new key and its wrapped form. The key is the caller's, who wipes
// it or gives it to [Cache.Adopt].
type Fresh struct {
	Key     *secret.Key
	Wrapped Wrapped
}

// maxGrowth bounds how many times its size a pool may hold after it was found
// empty.
const maxGrowth = 8

// pooled is a key in the pool.
type pooled struct {
	Fresh
	wrapped time.Time // when
}

// Pool keeps keys made locally and wrapped in batches ahead of need, so that
// creating a file asks the key service nothing. Only an empty pool waits for
// it, and then holds more from then on, until demand falls. A key that was not
// used for some time is wrapped anew: the KEK version that wrapped it may have
// been retired, and a file created with it could not be opened again. It is
// safe for concurrent use.
type Pool struct {
	kr     Keyring
	gen    func() *secret.Key
	opts   PoolOptions
	cancel context.CancelFunc
	ended  chan struct{} // closed when the refilling goroutine has ended

	wake chan struct{} // buffered 1: there is something to refill

	mu     sync.Mutex
	ready  []pooled // oldest first; guarded by mu
	size   int      // how many to hold; guarded by mu
	starve bool     // found empty since the last look at ages; guarded by mu
	wanted int      // callers waiting on an empty pool; guarded by mu
	round  *round   // the refill that waiting callers wait for; guarded by mu
	closed bool     // guarded by mu
}

// round is one request of the pool. err is set before done is closed.
type round struct {
	done chan struct{}
	err  error
}

func newRound() *round { return &round{done: make(chan struct{})} }

// NewPool makes a pool over kr and starts to fill it. gen makes one random key.
func NewPool(kr Keyring, gen func() *secret.Key, opts PoolOptions) *Pool {
	opts.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{
		kr: kr, gen: gen, opts: opts, cancel: cancel,
		ended: make(chan struct{}),
		wake:  make(chan struct{}, 1),
		round: newRound(), size: opts.Size,
	}
	p.wake <- struct{}{}
	go p.refill(ctx)
	return p
}

// Get returns a key from the pool. If the pool is empty it waits for the refill
// under way, and returns that refill's error if it fails.
func (p *Pool) Get(ctx context.Context) (Fresh, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return Fresh{}, ErrClosed
		}
		if n := len(p.ready); n > 0 {
			f := p.ready[0].Fresh
			p.ready[0] = pooled{}
			p.ready = p.ready[1:]
			low := n-1 < p.lowWater()
			p.mu.Unlock()
			if low {
				p.poke()
			}
			return f, nil
		}
		round := p.round
		p.wanted++
		p.starved()
		p.mu.Unlock()
		p.poke()

		if err := p.await(ctx, round); err != nil {
			return Fresh{}, err
		}
	}
}

// starved makes the pool hold more, because it was found empty. Called with mu
// held.
func (p *Pool) starved() {
	if p.starve {
		return
	}
	p.starve = true
	p.size = min(2*p.size, maxGrowth*p.opts.Size)
}

// lowWater returns the level below which a refill starts. Called with mu held.
func (p *Pool) lowWater() int { return p.opts.LowWater * p.size / p.opts.Size }

// await waits for the end of r and returns its error.
func (p *Pool) await(ctx context.Context, r *round) error {
	var err error
	select {
	case <-r.done:
		err = r.err
	case <-ctx.Done():
		err = ContextError(ctx, "new key")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted--
	if p.closed {
		return ErrClosed
	}
	return err
}

// poke wakes the refilling goroutine.
func (p *Pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default: // it is woken already
	}
}

// Len returns how many keys are ready.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// Close stops refilling and wipes the unused keys. Waiting callers get
// [ErrClosed].
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	<-p.ended
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.ready {
		f.Key.Wipe()
	}
	p.ready = nil
	p.endRound(ErrClosed)
}

// refill runs until ctx ends. After a failure it waits before it fills up
// again, unless a caller stands before an empty pool: that one hears the
// service's answer at once.
func (p *Pool) refill(ctx context.Context) {
	defer close(p.ended)
	var retry <-chan time.Time
	aging := time.NewTicker(p.opts.MaxAge / 2)
	defer aging.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-aging.C:
			p.renew(ctx)
			continue
		case <-p.wake:
			if retry != nil && !p.someoneWaits() {
				continue
			}
		}
		retry = nil
		if err := p.fillUp(ctx); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			if failures++; failures == 1 {
				p.opts.Log.Warn("cannot wrap new keys; files can be created while the pool lasts",
					"ready", p.Len(), "error", err)
			}
			retry = time.After(backoff{p.opts.RetryMin, p.opts.RetryMax}.pause(failures))
		}
	}
}

func (p *Pool) someoneWaits() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wanted > 0 && len(p.ready) == 0
}

// fillUp wraps batches until the pool is full, if it is low.
func (p *Pool) fillUp(ctx context.Context) error {
	p.mu.Lock()
	low := len(p.ready) < p.lowWater() || p.wanted > 0
	p.mu.Unlock()
	if !low {
		return nil // woken by a caller whom the last refill served already
	}
	for {
		n := p.lacks()
		if n <= 0 {
			return nil
		}
		if err := p.fill(ctx, n); err != nil {
			return err
		}
	}
}

// lacks returns how many keys the next request is to wrap.
func (p *Pool) lacks() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(p.size+p.wanted-len(p.ready), p.opts.Batch)
}

// fill wraps n keys and puts them into the pool.
func (p *Pool) fill(ctx context.Context, n int) error {
	keys := make([]*secret.Key, n)
	for i := range keys {
		keys[i] = p.gen()
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	fresh, err := p.wrap(ctx, keys)
	if err != nil {
		for _, k := range keys {
			k.Wipe()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, fresh...)
	p.endRound(err)
	return err
}

// wrap has keys wrapped; they stay the caller's if that fails.
func (p *Pool) wrap(ctx context.Context, keys []*secret.Key) ([]pooled, error) {
	wrapped, err := p.kr.Wrap(ctx, keys)
	if err == nil && len(wrapped) != len(keys) {
		err = &Error{Class: ErrUnreachable, Op: "wrap", Err: errors.New("wrong number of results")}
	}
	if err != nil {
		return nil, err
	}
	fresh := make([]pooled, len(keys))
	for i, k := range keys {
		fresh[i] = pooled{Fresh{k, wrapped[i]}, time.Now()}
	}
	return fresh, nil
}

// renew has the keys that grew old wrapped anew, a batch at a time, and lets
// the pool shrink if it was not found empty lately. Without an answer the old
// wraps serve on; a refusal ends them.
func (p *Pool) renew(ctx context.Context) {
	for {
		old := p.takeOld()
		if len(old) == 0 {
			return
		}
		keys := make([]*secret.Key, len(old))
		for i, f := range old {
			keys[i] = f.Key
		}
		ask, cancel := context.WithTimeout(ctx, p.opts.Timeout)
		fresh, err := p.wrap(ask, keys)
		cancel()
		if err == nil {
			p.putBack(fresh)
			continue
		}
		if answered(err) {
			for _, k := range keys {
				k.Wipe()
			}
			continue
		}
		p.putBack(old)
		return
	}
}

// takeOld takes a batch of keys out of the pool that are older than half of
// MaxAge: they would be too old before the next look.
func (p *Pool) takeOld() []pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.starve {
		p.size = p.opts.Size
	}
	p.starve = false
	n := 0
	for n < min(len(p.ready), p.opts.Batch) && time.Since(p.ready[n].wrapped) >= p.opts.MaxAge/2 {
		n++
	}
	old := append([]pooled(nil), p.ready[:n]...)
	clear(p.ready[:n])
	p.ready = p.ready[n:]
	return old
}

func (p *Pool) putBack(keys []pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready = append(p.ready, keys...)
}

// endRound lets the waiting callers look again. Called with mu held.
func (p *Pool) endRound(err error) {
	p.round.err = err
	close(p.round.done)
	p.round = newRound()
}
