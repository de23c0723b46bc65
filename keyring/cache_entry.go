package keyring

import (
	"container/list"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/internal/secret"
)

// entry is one key of a [Cache]. Its fields are guarded by Cache.mu, but key is
// also read by leases, which come into being after it is set, and fault is
// atomic, because leases look at it for each operation on a file.
type entry struct {
	wrapped  Wrapped
	key      *secret.Key           // nil until the first answer
	fault    atomic.Pointer[error] // why leases get no key now, or nil
	refs     int                   // leases, and callers waiting for the answer
	idle     *list.Element         // place in Cache.idle, if nobody holds it
	gone     bool                  // no longer in the cache
	checked  time.Time             // when the service last said yes
	failures int                   // questions in a row that got no answer
	question *question             // under way, or nil
	timer    *time.Timer           // calls Cache.due
}

// question is one request for a key, on which any number of callers may wait.
// err is set before done is closed.
type question struct {
	done   chan struct{}
	cancel func() // when nobody waits any more; called once, with Cache.mu held
	err    error
}

var errKeyChanged = errors.New("the service returned another key than before")

// serves reports whether the key may be handed out without a question. Called
// with mu held.
func (c *Cache) serves(e *entry) bool {
	if e.key == nil || e.fault.Load() != nil {
		return false
	}
	if c.fresh(e) {
		return true
	}
	if time.Until(c.outage) <= 0 || c.lapsed(e) {
		return false
	}
	c.schedule(e) // served without an answer: ask soon
	return true
}

// fresh reports whether the service's last yes is within its TTL. Called with mu
// held.
func (c *Cache) fresh(e *entry) bool {
	return c.opts.TTL < 0 || time.Since(e.checked) < c.opts.TTL
}

// lapsed reports whether the key's time and grace are over. Called with mu held.
func (c *Cache) lapsed(e *entry) bool {
	return time.Since(e.checked) >= c.opts.TTL+c.opts.Grace
}

// confirm starts a new TTL. Called with mu held.
func (c *Cache) confirm(e *entry) {
	e.checked = time.Now()
	e.failures = 0
	e.fault.Store(nil)
	c.schedule(e)
}

// schedule sets the entry's timer: a held key is asked for again when its TTL
// ends and then, without an answer, again and again; one that is not held is
// evicted in the end. Called with mu held.
func (c *Cache) schedule(e *entry) {
	if c.opts.TTL < 0 {
		return
	}
	wait := c.opts.TTL - time.Since(e.checked)
	switch {
	case e.refs == 0:
		wait += c.opts.Grace
	case wait <= 0:
		wait = c.retry.pause(e.failures)
	}
	if e.timer == nil {
		e.timer = time.AfterFunc(wait, func() { c.due(e) })
	} else {
		e.timer.Reset(wait)
	}
}

// due runs when the entry's timer ends; by the time it has the lock, something
// else may have happened.
func (c *Cache) due(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case e.gone || e.question != nil: // an answer schedules anew
	case e.refs > 0 && !c.fresh(e):
		c.ask(e)
	case e.refs == 0 && c.lapsed(e):
		c.stats.Evicted++
		c.remove(e, ErrClosed)
	default: // it was released, or confirmed
		c.schedule(e)
	}
}

// wait returns the answer, or an error when ctx ends before.
func (q *question) wait(ctx context.Context) error {
	select {
	case <-q.done:
		return q.err
	default:
	}
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return ContextError(ctx, "unwrap")
	}
}

// ask returns the question under way for the entry, or starts one. Called with
// mu held, on a cache that is not closed; with Inline mu is let go of meanwhile.
func (c *Cache) ask(e *entry) *question {
	if e.question != nil {
		return e.question
	}
	if c.opts.Inline {
		q := &question{done: make(chan struct{}), cancel: func() {}}
		e.question = q
		c.wg.Add(1)
		c.mu.Unlock()
		defer c.mu.Lock()
		defer c.wg.Done()
		c.question(c.ctx, e)
		return q
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	e.question = &question{done: make(chan struct{}), cancel: cancel}
	c.wg.Go(func() {
		defer cancel()
		c.question(ctx, e)
	})
	return e.question
}

// question puts the questions of entries to the service, together.
func (c *Cache) question(ctx context.Context, entries ...*entry) {
	wrapped := make([]Wrapped, len(entries))
	for i, e := range entries {
		wrapped[i] = e.wrapped
	}
	for i, u := range c.src.UnwrapAll(ctx, wrapped) {
		c.answer(entries[i], u.Key, u.Err)
	}
}

// answer takes what the service said, or that it said nothing.
func (c *Cache) answer(e *entry, key *secret.Key, err error) {
	c.warn(e, err)
	c.mu.Lock()
	q := e.question
	e.question = nil
	dropped := false
	switch {
	case e.gone:
		key.Wipe()
		q.err = ErrClosed
	case err != nil:
		q.err = c.failed(e, err)
		dropped = e.gone && e.refs > 0 && e.key != nil
	default:
		q.err = c.accept(e, key)
		dropped = q.err != nil && e.refs > 0
	}
	c.mu.Unlock()
	close(q.done)
	if dropped && c.opts.OnDrop != nil {
		c.opts.OnDrop(e.wrapped, q.err)
	}
}

// warn tells BeforeDrop of a refusal, if somebody holds the key.
func (c *Cache) warn(e *entry, err error) {
	if c.opts.BeforeDrop == nil || err == nil || !answered(err) {
		return
	}
	c.mu.Lock()
	held := !e.gone && e.refs > 0 && e.key != nil
	c.mu.Unlock()
	if held {
		c.opts.BeforeDrop(e.wrapped, err)
	}
}

// accept takes a yes. Called with mu held.
func (c *Cache) accept(e *entry, key *secret.Key) error {
	if e.key == nil {
		e.key = key
		c.confirm(e)
		return nil
	}
	same := e.key.Equal(key)
	key.Wipe()
	if !same {
		err := &Error{Class: ErrCorrupt, Op: "unwrap", Err: errKeyChanged}
		c.stats.Dropped++
		c.remove(e, err)
		return err
	}
	c.confirm(e)
	return nil
}

// failed takes a no, or the lack of an answer, and returns what the callers who
// wait are told: nothing, while the key still serves. Called with mu held.
func (c *Cache) failed(e *entry, err error) error {
	switch {
	case e.key == nil:
		c.remove(e, err)
		return err
	case answered(err):
		c.stats.Dropped++
		c.remove(e, err)
		return err
	}
	e.failures++
	c.outage = time.Now().Add(c.retry.first)
	c.schedule(e)
	if !c.lapsed(e) {
		return nil
	}
	e.fault.Store(&err)
	return err
}
