package keyring

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/envfs/envfs/internal/secret"
)

// CacheOptions tune a [Cache]. Zero values take the defaults.
type CacheOptions struct {
	Size    int           // keys kept; held ones always stay; default 65,536
	TTL     time.Duration // after which the service is asked again; default 5 min, negative: never
	Grace   time.Duration // beyond TTL while the service gives no answer; default none
	Timeout time.Duration // for one question; default 30 s
	// Inline asks in the goroutine that wants the key: for a source that answers out of memory, where handing the
	// question over would take longer than the answer.
	Inline bool

	// BeforeDrop, if set, is told of each held key that the service has refused
	// while the key still serves for a last time, so that what was written under
	// it can be put away. The key is dropped when it returns. It is called
	// without locks held.
	BeforeDrop func(w Wrapped, err error)
	// OnDrop, if set, is told of each held key that the service has refused. By
	// then its leases return err. The holders release them soon: the key is
	// wiped with the last release. It is called without locks held.
	OnDrop func(w Wrapped, err error)
}

func (o *CacheOptions) setDefaults() {
	defaultTo(&o.Size, 65_536)
	defaultTo(&o.Timeout, 30*time.Second)
	if o.TTL == 0 {
		o.TTL = 5 * time.Minute
	}
	o.Grace = max(o.Grace, 0)
}

// CacheStats says what a [Cache] holds and did since it was made.
type CacheStats struct {
	Keys    int    // kept, held or not
	Hits    uint64 // Acquire served without a question
	Misses  uint64 // Acquire that asked or joined a question
	Evicted uint64 // for want of room or past their time
	Dropped uint64 // refused by the service
}

// Cache keeps unwrapped keys, up to a number and for a time. Concurrent
// questions for one key are asked once. A key that nobody holds is wiped when
// it is evicted: the least recently used first, or at the end of TTL + Grace.
//
// At the end of TTL a held key is asked for again in the background, one that
// is not held at its next Acquire. The service's answer decides: yes starts a
// new TTL; no ([ErrDenied], [ErrRevoked], …) drops the key at once; no answer
// lets it serve on for Grace, after which leases return [ErrUnreachable] until
// the service answers.
//
// It is safe for concurrent use.
type Cache struct {
	src    Unwrapper
	opts   CacheOptions
	retry  backoff
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // questions under way

	// mu guards all below and the entries' fields marked so. Under it only
	// keys' own locks are taken.
	mu      sync.Mutex
	entries map[Wrapped]*entry
	idle    *list.List // of *entry that nobody holds; most recently used first
	outage  time.Time  // until then no Acquire asks for a key that still may serve
	stats   CacheStats
	closed  bool
}

// NewCache makes a cache over src, which is mostly a [Batcher].
func NewCache(src Unwrapper, opts CacheOptions) *Cache {
	opts.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Cache{
		src: src, opts: opts, ctx: ctx, cancel: cancel,
		retry:   backoff{defaultRetryMin, defaultRetryMax},
		entries: make(map[Wrapped]*entry),
		idle:    list.New(),
	}
}

// Acquire returns a lease on the key that w wraps, from the cache or from the
// service, which it asks again and again while ctx has a deadline. If ctx ends it returns at once.
func (c *Cache) Acquire(ctx context.Context, w Wrapped) (*Lease, error) {
	return insist(ctx, "unwrap", c.retry, func() (*Lease, error) { return c.acquire(ctx, w) })
}

func (c *Cache) acquire(ctx context.Context, w Wrapped) (*Lease, error) {
	if ctx.Err() != nil {
		return nil, ContextError(ctx, "unwrap")
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	e := c.hold(w)
	if c.serves(e) {
		c.stats.Hits++
		c.mu.Unlock()
		return &Lease{c: c, e: e}, nil
	}
	c.stats.Misses++
	q := c.ask(e)
	c.mu.Unlock()

	if err := q.wait(ctx); err != nil {
		c.release(e)
		return nil, err
	}
	return &Lease{c: c, e: e}, nil
}

// Fetch gets keys before somebody acquires them, in one question for all that
// are not there. It returns when they are there or cannot be had, or when ctx
// ends. A key that is refused is refused again to whoever acquires it.
func (c *Cache) Fetch(ctx context.Context, wrapped []Wrapped) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	asking, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	wanted := 0 // of what is asked, by somebody; guarded by mu
	forsake := func() {
		if wanted--; wanted == 0 {
			cancel()
		}
	}
	var missing []*entry
	var questions []*question
	for _, w := range wrapped {
		e := c.hold(w)
		if e.question != nil || c.serves(e) {
			c.letGo(e)
			continue
		}
		e.question = &question{done: make(chan struct{}), cancel: forsake}
		missing, questions = append(missing, e), append(questions, e.question)
	}
	wanted = len(missing)
	c.wg.Go(func() {
		defer cancel()
		c.question(asking, missing...)
	})
	c.mu.Unlock()
	for i, e := range missing {
		select {
		case <-questions[i].done:
		case <-ctx.Done():
		}
		c.release(e)
	}
}

// Adopt puts a key that was just made and wrapped into the cache, which owns it
// from now on.
func (c *Cache) Adopt(w Wrapped, key *secret.Key) *Lease {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		e := &entry{wrapped: w, key: key, refs: 1, gone: true}
		e.fault.Store(&ErrClosed)
		return &Lease{c: c, e: e}
	}
	e := c.hold(w)
	if e.key != nil {
		key.Wipe()
	} else {
		e.key = key
		c.confirm(e)
	}
	return &Lease{c: c, e: e}
}

// Stats returns a snapshot.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Keys = len(c.entries)
	return s
}

// Close gives up the questions under way and wipes the keys that nobody holds;
// the others are wiped as they are released. Their leases return [ErrClosed].
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	for _, e := range c.entries {
		c.remove(e, ErrClosed)
	}
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// hold finds or makes the entry of w and counts one more holder, so that it is
// not evicted. Called with mu held.
func (c *Cache) hold(w Wrapped) *entry {
	e := c.entries[w]
	if e == nil {
		e = &entry{wrapped: w}
		c.entries[w] = e
	}
	e.refs++
	if e.idle != nil {
		c.idle.Remove(e.idle)
		e.idle = nil
	}
	return e
}

// release counts one holder less.
func (c *Cache) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.letGo(e)
}

// retire is release of a key that is not kept once nobody holds it.
func (c *Cache) retire(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.refs == 1 && !e.gone {
		c.remove(e, ErrClosed)
	}
	c.letGo(e)
}

// letGo is release. Called with mu held.
func (c *Cache) letGo(e *entry) {
	if e.refs--; e.refs > 0 {
		return
	}
	switch {
	case e.gone:
		e.key.Wipe()
	case e.key == nil: // every caller left before the answer came
		e.question.cancel()
		c.remove(e, ErrClosed) // whoever comes now is to ask anew
	default:
		c.rest(e)
	}
}

// rest keeps an entry that nobody holds, and makes room. Called with mu held.
func (c *Cache) rest(e *entry) {
	e.idle = c.idle.PushFront(e)
	for len(c.entries) > c.opts.Size && c.idle.Len() > 0 {
		c.stats.Evicted++
		c.remove(c.idle.Back().Value.(*entry), ErrClosed)
	}
}

// remove takes an entry out of the cache; if nobody holds it, its key is wiped.
// Leases return err from now on. Called with mu held.
func (c *Cache) remove(e *entry, err error) {
	delete(c.entries, e.wrapped)
	e.gone = true
	e.fault.Store(&err)
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.idle != nil {
		c.idle.Remove(e.idle)
		e.idle = nil
	}
	if e.refs == 0 {
		e.key.Wipe()
	}
}
