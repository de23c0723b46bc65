package keyring

import (
	"context"
	"errors"
	"log/slog"
	"slices"
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
	MaxAge   time.Duration // after which an unused key is replaced by one under the newest KEK version; default 5 min
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

// topUpPause is how long after a refill a pool is filled to the brim, unless it
// gets low before.
const topUpPause = time.Second

// pooled is a key in the pool.
type pooled struct {
	Fresh
	wrapped time.Time // when
}

// Pool keeps keys made locally and wrapped in batches ahead of need, so that
// creating a file asks the key service nothing. Only an empty pool waits for
// it, and then holds more from then on, until demand falls. A key that was not
// used for some time is replaced: the KEK version that wrapped it may have been
// retired, and a file created with it could not be opened again. It is safe for
// concurrent use.
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
// under way, and returns that refill's error if it fails: at once without a
// deadline, and else when no time is left for another one.
func (p *Pool) Get(ctx context.Context) (Fresh, error) {
	return insist(ctx, "new key", backoff{p.opts.RetryMin, p.opts.RetryMax}, func() (Fresh, error) { return p.get(ctx) })
}

func (p *Pool) get(ctx context.Context) (Fresh, error) {
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
	var retry, topUp <-chan time.Time
	aging := time.NewTicker(p.opts.MaxAge / 2)
	defer aging.Stop()
	for failures := 0; ; {
		brim := false
		select {
		case <-ctx.Done():
			return
		case <-retry:
		case <-topUp:
			brim = true
		case <-aging.C:
			p.renew(ctx)
			continue
		case <-p.wake:
			if retry != nil && !p.someoneWaits() {
				continue
			}
		}
		retry, topUp = nil, nil
		if err := p.fillUp(ctx, brim); err == nil {
			failures = 0
			if p.lacks(true) > 0 {
				topUp = time.After(topUpPause)
			}
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

// fillUp fills a pool that is low, or lacks a full batch; with brim, any that is
// not full.
func (p *Pool) fillUp(ctx context.Context, brim bool) error {
	for {
		n := p.lacks(brim)
		if n == 0 {
			return nil
		}
		if err := p.fill(ctx, n, nil); err != nil {
			return err
		}
		brim = false
	}
}

// lacks returns how many keys the next request is to wrap. While keys are being
// taken they are replaced in full batches, and the last few when it is quiet:
// or each round trip would be followed by a request for what was taken
// meanwhile.
func (p *Pool) lacks(brim bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.size + p.wanted - len(p.ready)
	if n < p.opts.Batch && len(p.ready) >= p.lowWater() && !brim {
		return 0
	}
	return max(0, min(n, p.opts.Batch))
}

// fill puts n new keys into the pool, in the place of the oldest ones up to the
// key last, if that is set. Without an answer the pool stays as it is; a refusal
// ends what was to be replaced.
func (p *Pool) fill(ctx context.Context, n int, last *secret.Key) error {
	fresh, err := p.generate(ctx, n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || answered(err) {
		p.dropThrough(last)
	}
	p.ready = append(p.ready, fresh...)
	p.endRound(err)
	return err
}

// generate makes n keys and has them wrapped.
func (p *Pool) generate(ctx context.Context, n int) ([]pooled, error) {
	if n == 0 {
		return nil, nil
	}
	keys := make([]*secret.Key, n)
	for i := range keys {
		keys[i] = p.gen()
	}
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	wrapped, err := p.kr.Wrap(ctx, keys)
	if err == nil && len(wrapped) != len(keys) {
		err = &Error{Class: ErrUnreachable, Op: "wrap", Err: errors.New("wrong number of results")}
	}
	if err != nil {
		for _, k := range keys {
			k.Wipe()
		}
		return nil, err
	}
	fresh := make([]pooled, n)
	for i, k := range keys {
		fresh[i] = pooled{Fresh{k, wrapped[i]}, time.Now()}
	}
	return fresh, nil
}

// renew replaces the keys that grew old, a batch at a time, and lets the pool
// shrink if it was not found empty lately. They stay in the pool, and serve,
// until the new ones are there.
func (p *Pool) renew(ctx context.Context) {
	p.calm()
	for {
		last, n := p.old()
		if last == nil {
			return
		}
		if err := p.fill(ctx, n, last); err != nil && !answered(err) {
			return
		}
	}
}

// calm lets a pool shrink that was not found empty since it was last called.
func (p *Pool) calm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.starve {
		p.size = p.opts.Size
	}
	p.starve = false
}

// old returns the last one of a batch of keys that are older than half of
// MaxAge, and how many new ones are to take their place: they would be too old
// before the next look. last is nil if there are none.
func (p *Pool) old() (last *secret.Key, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < min(len(p.ready), p.opts.Batch) && time.Since(p.ready[old].wrapped) >= p.opts.MaxAge/2 {
		last = p.ready[old].Key
		old++
	}
	return last, max(0, min(old, p.size-(len(p.ready)-old)))
}

// dropThrough wipes the oldest keys up to the key last, if that was not taken
// meanwhile. Called with mu held.
func (p *Pool) dropThrough(last *secret.Key) {
	end := 1 + slices.IndexFunc(p.ready, func(f pooled) bool { return f.Key == last })
	for _, f := range p.ready[:end] {
		f.Key.Wipe()
	}
	clear(p.ready[:end])
	p.ready = p.ready[end:]
}

// endRound lets the waiting callers look again. Called with mu held.
func (p *Pool) endRound(err error) {
	p.round.err = err
	close(p.round.done)
	p.round = newRound()
}
