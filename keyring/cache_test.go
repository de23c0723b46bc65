package keyring_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// cacheFixture is a cache over the fake, with a TTL of a minute and ten of grace.
type cacheFixture struct {
	fixture
	cache   *keyring.Cache
	keys    []*secret.Key
	wrapped []keyring.Wrapped
	dropped chan error
}

const (
	ttl   = time.Minute
	grace = 10 * time.Minute
)

// withCache runs a test in a bubble, over a fake that wrapped n keys. In the end
// no key but those n may be left.
func withCache(t *testing.T, n, size int, test func(*testing.T, cacheFixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := cacheFixture{fixture: newFixture(), dropped: make(chan error, 100)}
		f.keys, f.wrapped = f.wrap(t, n)
		f.fake.ResetCounters()
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{})
		defer b.Close()
		f.cache = keyring.NewCache(b, keyring.CacheOptions{Size: size, TTL: ttl, Grace: grace,
			OnDrop: func(_ keyring.Wrapped, err error) { f.dropped <- err }})
		test(t, f)
		f.cache.Close()
		f.wantCells(t, "closed", n)
	})
}

func (f cacheFixture) acquire(t *testing.T, i int) *keyring.Lease {
	t.Helper()
	l, err := f.cache.Acquire(t.Context(), f.wrapped[i])
	if err != nil {
		t.Fatalf("acquire %d: %v", i, err)
	}
	f.wantKey(t, l, i)
	return l
}

func (f cacheFixture) wantKey(t *testing.T, l *keyring.Lease, i int) {
	t.Helper()
	got, err := l.Key()
	if err != nil || !got.Equal(f.keys[i]) {
		t.Fatalf("lease on %d: %v", i, err)
	}
}

func wantFault(t *testing.T, when string, l *keyring.Lease, class error) {
	t.Helper()
	if key, err := l.Key(); key != nil || keyring.Class(err) != class {
		t.Fatalf("%s: %v; want %v", when, err, class)
	}
}

func (f cacheFixture) wantUnwraps(t *testing.T, when string, want int) {
	t.Helper()
	synctest.Wait()
	if got := f.fake.Counters().Unwraps; got != want {
		t.Fatalf("%s: %d requests; want %d", when, got, want)
	}
}

func TestCacheServesWithinTTL(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		for range 5 {
			f.acquire(t, 0).Release()
		}
		time.Sleep(ttl - 1)
		f.acquire(t, 0).Release()
		f.wantUnwraps(t, "within the TTL", 1)
		time.Sleep(time.Nanosecond)
		f.acquire(t, 0).Release()
		f.wantUnwraps(t, "at its end", 2)
		if s := f.cache.Stats(); s.Hits != 5 || s.Misses != 2 || s.Keys != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCacheSingleflight(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		f.fake.SetDelay(time.Second)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { f.acquire(t, 0).Release() })
		}
		wg.Wait()
		if c := f.fake.Counters(); c.Items != 1 {
			t.Fatalf("%d items asked for by 50 callers of one key", c.Items)
		}
	})
}

// TestCacheFetch: keys that are fetched ahead cost one request, and whoever
// acquires one of them meanwhile waits for that.
func TestCacheFetch(t *testing.T) {
	const n = 100
	withCache(t, n, n, func(t *testing.T, f cacheFixture) {
		f.acquire(t, 0).Release()
		f.fake.SetDelay(time.Second)
		fetched := make(chan struct{})
		go func() {
			defer close(fetched)
			f.cache.Fetch(t.Context(), append(f.wrapped, f.wrapped[1])) // one twice: a hard link
		}()
		synctest.Wait()
		f.acquire(t, 1).Release()
		<-fetched
		for i := range n {
			f.acquire(t, i).Release()
		}
		f.wantUnwraps(t, "all acquired", 2)
		if c := f.fake.Counters(); c.Items != n {
			t.Errorf("%d keys asked for; want each once", c.Items)
		}
	})
}

// TestCacheFetchForsaken: the request of a fetch ends when nobody waits for any
// of its keys, and not before.
func TestCacheFetchForsaken(t *testing.T) {
	withCache(t, 3, 10, func(t *testing.T, f cacheFixture) {
		f.fake.SetDelay(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		got := make(chan error, 1)
		go func() {
			time.Sleep(time.Millisecond)
			l, err := f.cache.Acquire(t.Context(), f.wrapped[2])
			if err == nil {
				l.Release()
			}
			got <- err
		}()
		begun := time.Now()
		f.cache.Fetch(ctx, f.wrapped)
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it returned after %v; its context ended after a second", took)
		}
		if err := <-got; keyring.Class(err) != keyring.ErrUnreachable || time.Since(begun) != 30*time.Second {
			t.Errorf("who waits still: %v after %v; want the timeout of the request, 30 s", err, time.Since(begun))
		}

		synctest.Wait()
		before := f.fake.Counters().Cancelled
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.cache.Fetch(ctx, f.wrapped)
		synctest.Wait()
		if n := f.fake.Counters().Cancelled - before; n != 1 {
			t.Errorf("%d requests given up; want the one that nobody waits for", n)
		}
	})
}

func TestCacheAdopt(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		l := f.cache.Adopt(f.wrapped[0], f.keys[0].Clone())
		f.wantKey(t, l, 0)
		f.acquire(t, 0).Release()
		again := f.cache.Adopt(f.wrapped[0], f.keys[0].Clone())
		f.wantKey(t, again, 0)
		f.wantCells(t, "adopted twice", 2)
		f.wantUnwraps(t, "adopted", 0)
		time.Sleep(ttl)
		f.wantUnwraps(t, "a held key at the end of its TTL", 1)
		l.Release()
		l.Release()
		f.wantKey(t, again, 0)
		again.Release()
		if _, err := again.Key(); !errors.Is(err, keyring.ErrClosed) {
			t.Errorf("released lease: %v", err)
		}
	})
}

func TestCacheEvictsLeastRecentlyUsed(t *testing.T) {
	withCache(t, 5, 3, func(t *testing.T, f cacheFixture) {
		held := f.acquire(t, 0)
		for _, i := range []int{1, 2, 1, 3} { // 2 is the least recently used of those not held
			f.acquire(t, i).Release()
		}
		f.wantCells(t, "full", 5+3)
		f.wantUnwraps(t, "full", 4)
		f.acquire(t, 1).Release()
		f.acquire(t, 3).Release()
		f.wantUnwraps(t, "what was kept", 4)
		f.acquire(t, 2).Release()
		f.wantUnwraps(t, "what was evicted", 5)
		// Held keys stay whatever the size.
		leases := []*keyring.Lease{f.acquire(t, 1), f.acquire(t, 2), f.acquire(t, 3), f.acquire(t, 4)}
		f.wantCells(t, "five held", 5+5)
		f.wantKey(t, held, 0)
		for _, l := range append(leases, held) {
			l.Release()
		}
		f.wantCells(t, "released", 5+3)
	})
}

// A key whose file is gone is not kept, unless another file of that key is open.
func TestCacheRetires(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		a, b := f.acquire(t, 0), f.acquire(t, 0)
		a.Retire()
		a.Retire()
		f.wantKey(t, b, 0)
		b.Release()
		if got := f.cache.Stats().Keys; got != 1 {
			t.Fatalf("%d keys are kept after Release; want 1", got)
		}
		f.acquire(t, 0).Retire()
		if got := f.cache.Stats().Keys; got != 0 {
			t.Fatalf("%d keys are kept after Retire; want none", got)
		}
		f.wantCells(t, "retired", 1)
		f.wantUnwraps(t, "retired", 1)
		f.acquire(t, 0).Release()
		f.wantUnwraps(t, "acquired again", 2)
	})
}

func TestCacheWipesUnusedInTheEnd(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		f.acquire(t, 0).Release()
		time.Sleep(ttl + grace - 1)
		synctest.Wait()
		f.wantCells(t, "before the end of TTL and grace", 2)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		f.wantCells(t, "at their end", 1)
		f.wantUnwraps(t, "nobody holds it, so nobody asks", 1)
		f.acquire(t, 0).Release()
		f.wantUnwraps(t, "wanted again", 2)
	})
}

func TestCacheDeniedDropsAtOnce(t *testing.T) {
	for name, class := range map[string]error{"denied": keyring.ErrDenied, "revoked": keyring.ErrRevoked, "corrupt": keyring.ErrCorrupt, "config": keyring.ErrConfig} {
		t.Run(name, func(t *testing.T) {
			withCache(t, 2, 10, func(t *testing.T, f cacheFixture) {
				bad, good := f.acquire(t, 0), f.acquire(t, 1)
				f.fake.FailItem(f.wrapped[0], &keyring.Error{Class: class})
				time.Sleep(ttl - 1)
				f.wantKey(t, bad, 0)
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				wantFault(t, "at the end of the TTL", bad, class)
				if err := <-f.dropped; keyring.Class(err) != class {
					t.Errorf("OnDrop: %v", err)
				}
				f.wantKey(t, good, 1)
				f.wantCells(t, "still held", 2+2)
				bad.Release()
				f.wantCells(t, "released", 2+1)

				if _, err := f.cache.Acquire(t.Context(), f.wrapped[0]); keyring.Class(err) != class {
					t.Fatalf("acquire while refused: %v", err)
				}
				f.fake.FailItem(f.wrapped[0], nil)
				f.acquire(t, 0).Release() // granted again
				good.Release()
				if len(f.dropped) != 0 {
					t.Error("OnDrop was told of a key that nobody held")
				}
			})
		})
	}
}

func TestCacheGrace(t *testing.T) {
	withCache(t, 2, 10, func(t *testing.T, f cacheFixture) {
		held := f.acquire(t, 0)
		f.acquire(t, 1).Release()
		f.fake.Outage()
		time.Sleep(ttl + grace - time.Second)
		synctest.Wait()
		f.wantKey(t, held, 0)
		f.acquire(t, 0).Release()
		f.acquire(t, 1).Release() // not held, but within its grace
		asked := f.fake.Counters().Unwraps
		if asked < 100 || asked > 250 {
			t.Errorf("asked %d times in 10 min of outage; want once in about 4 to 5 s", asked)
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		wantFault(t, "after the grace", held, keyring.ErrUnreachable)
		for i := range 2 {
			if _, err := f.cache.Acquire(t.Context(), f.wrapped[i]); keyring.Class(err) != keyring.ErrUnreachable {
				t.Fatalf("acquire %d after the grace: %v", i, err)
			}
		}
		f.fake.Restore()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		f.wantKey(t, held, 0) // heals without a new lease
		f.acquire(t, 1).Release()
		held.Release()
		if len(f.dropped) != 0 {
			t.Error("an outage dropped a key")
		}
	})
}

// In an outage, each opening of a file whose key is at hand must not wait for
// the service to give no answer once more.
func TestCacheDoesNotWaitInOutage(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		held := f.acquire(t, 0)
		f.fake.Outage()
		f.fake.SetDelay(10 * time.Second)
		time.Sleep(ttl + 10*time.Second)
		synctest.Wait() // the first question has failed
		begun := time.Now()
		f.acquire(t, 0).Release()
		if d := time.Since(begun); d != 0 {
			t.Errorf("waited %v", d)
		}
		held.Release()
	})
}

// A no after an outage is a no.
func TestCacheDeniedAfterOutage(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		l := f.acquire(t, 0)
		f.fake.Outage()
		time.Sleep(ttl + time.Minute)
		f.wantKey(t, l, 0)
		f.fake.Deny()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		wantFault(t, "denied after an outage", l, keyring.ErrDenied)
		l.Release()
		f.wantCells(t, "released", 1)
	})
}

func TestCacheFirstQuestionFails(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		f.fake.Outage()
		for want := range 2 { // failures are not remembered
			if _, err := f.cache.Acquire(t.Context(), f.wrapped[0]); keyring.Class(err) != keyring.ErrUnreachable {
				t.Fatalf("%v; want unreachable", err)
			}
			f.wantUnwraps(t, "asked", want+1)
		}
		if n := f.cache.Stats().Keys; n != 0 {
			t.Errorf("%d entries kept", n)
		}
		f.fake.Restore()
		f.acquire(t, 0).Release()
	})
}

func TestCacheCancelledCaller(t *testing.T) {
	withCache(t, 2, 10, func(t *testing.T, f cacheFixture) {
		f.fake.SetDelay(10 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.acquire(t, 0).Release() }) // stays
		leaves := func(i int) {
			wg.Go(func() {
				begun := time.Now()
				if _, err := f.cache.Acquire(ctx, f.wrapped[i]); !errors.Is(err, context.Canceled) || time.Since(begun) != time.Second {
					t.Errorf("caller who left %d: %v after %v", i, err, time.Since(begun))
				}
			})
		}
		leaves(0)
		leaves(1) // alone with its question
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		// Whoever comes after asks anew and does not hear of the one who left.
		wg.Go(func() { f.acquire(t, 1).Release() })
		wg.Wait()
		if n := f.cache.Stats().Keys; n != 2 {
			t.Errorf("%d keys; want 2", n)
		}
	})
}

// slowToCancel is a source whose first call goes on for a second after its
// context has ended.
type slowToCancel struct {
	arena *secret.Arena
	calls atomic.Int64
}

func (s *slowToCancel) UnwrapAll(ctx context.Context, _ []keyring.Wrapped) []keyring.Unwrapped {
	if s.calls.Add(1) == 1 {
		<-ctx.Done()
		time.Sleep(time.Second)
		return []keyring.Unwrapped{{Err: ctx.Err()}}
	}
	return []keyring.Unwrapped{{Key: s.arena.Random(48)}}
}

// Who asks for a key right after another has given up does not get the other's
// cancellation.
func TestCacheAsksAnewAfterCancelledQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &slowToCancel{arena: secret.NewArena(nil)}
		c := keyring.NewCache(src, keyring.CacheOptions{})
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Acquire(ctx, "w"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		l, err := c.Acquire(t.Context(), "w")
		if err != nil {
			t.Fatalf("after another's cancellation: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := l.Key(); err != nil {
			t.Errorf("the late end of the first question took the key away: %v", err)
		}
		l.Release()
	})
}

func TestCacheClose(t *testing.T) {
	withCache(t, 3, 10, func(t *testing.T, f cacheFixture) {
		held := f.acquire(t, 0)
		f.acquire(t, 1).Release()
		f.fake.SetDelay(time.Hour)
		errs := make(chan error, 1)
		go func() {
			_, err := f.cache.Acquire(context.Background(), f.wrapped[2])
			errs <- err
		}()
		synctest.Wait()
		f.cache.Close()
		f.cache.Close()
		if err := <-errs; !errors.Is(err, keyring.ErrClosed) {
			t.Errorf("waiting at Close: %v", err)
		}
		f.wantCells(t, "closed, one held", 3+1)
		if _, err := held.Key(); !errors.Is(err, keyring.ErrClosed) {
			t.Errorf("held at Close: %v", err)
		}
		held.Release()
		if _, err := f.cache.Acquire(t.Context(), f.wrapped[0]); !errors.Is(err, keyring.ErrClosed) {
			t.Errorf("Acquire after Close: %v", err)
		}
		f.cache.Adopt(f.wrapped[0], f.keys[0].Clone()).Release()
		f.wantCells(t, "adopted after Close", 3)
	})
}

// A service that suddenly returns another key for the same wrapped form must
// not be believed: files would be written with it.
func TestCacheRefusesChangedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arena := secret.NewArena(nil)
		c := keyring.NewCache(changing{arena}, keyring.CacheOptions{TTL: ttl})
		l, err := c.Acquire(t.Context(), "w")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(ttl)
		synctest.Wait()
		wantFault(t, "another key", l, keyring.ErrCorrupt)
		l.Release()
		c.Close()
		if n := arena.Stats().Cells; n != 0 {
			t.Errorf("%d keys in memory", n)
		}
	})
}

type changing struct{ arena *secret.Arena }

func (c changing) UnwrapAll(context.Context, []keyring.Wrapped) []keyring.Unwrapped {
	return []keyring.Unwrapped{{Key: c.arena.Random(48)}}
}

func TestCacheWithoutTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		_, wrapped := f.wrap(t, 1)
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{})
		defer b.Close()
		c := keyring.NewCache(b, keyring.CacheOptions{TTL: -1})
		defer c.Close()
		for range 3 {
			l, err := c.Acquire(t.Context(), wrapped[0])
			if err != nil {
				t.Fatal(err)
			}
			l.Release()
			time.Sleep(1000 * time.Hour)
		}
		if n := f.fake.Counters().Unwraps; n != 1 {
			t.Errorf("%d requests; want 1", n)
		}
	})
}

// Many goroutines over few keys, room for fewer, and answers that change:
// whatever happens, a lease gives the right key or an error, and no key leaks.
func TestCacheConcurrent(t *testing.T) {
	withCache(t, 8, 3, func(t *testing.T, f cacheFixture) {
		f.fake.SetDelay(time.Millisecond)
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				for n := range 200 {
					i := (g*7 + n) % 8
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%5)*time.Millisecond)
					l, err := f.cache.Acquire(ctx, f.wrapped[i])
					cancel()
					if err != nil {
						continue
					}
					if key, err := l.Key(); err == nil && !key.Equal(f.keys[i]) {
						t.Errorf("another key")
					}
					time.Sleep(time.Duration(g) * time.Second)
					l.Release()
				}
			})
		}
		wg.Go(func() {
			for range 20 {
				f.fake.Outage()
				time.Sleep(30 * time.Second)
				f.fake.Deny()
				time.Sleep(30 * time.Second)
				f.fake.Restore()
				time.Sleep(2 * time.Minute)
			}
		})
		wg.Add(1)
		go func() { // OnDrop is told; nobody reads but us
			defer wg.Done()
			for {
				select {
				case <-f.dropped:
				case <-time.After(2 * time.Hour):
					return
				}
			}
		}()
		wg.Wait()
		if s := f.cache.Stats(); s.Keys > 3 {
			t.Errorf("%d keys kept with room for 3", s.Keys)
		}
	})
}

func BenchmarkCacheHit(b *testing.B) {
	f := newFixture()
	c := keyring.NewCache(nil, keyring.CacheOptions{})
	defer c.Close()
	c.Adopt("w", f.gen()).Release()
	for b.Loop() {
		l, err := c.Acquire(b.Context(), "w")
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}

func BenchmarkLeaseKey(b *testing.B) {
	f := newFixture()
	c := keyring.NewCache(nil, keyring.CacheOptions{})
	defer c.Close()
	l := c.Adopt("w", f.gen())
	for b.Loop() {
		if _, err := l.Key(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestCacheWaitsForTheService: whoever has time left is served when the service comes back, and whoever has not is told when
// the time is over, not by the first question that got no answer.
func TestCacheWaitsForTheService(t *testing.T) {
	const back, late = 40 * time.Second, 2 * time.Second
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		f.fake.Outage()
		patient, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		hasty, cancel := context.WithTimeout(t.Context(), back/2)
		defer cancel()
		begun := time.Now()
		time.AfterFunc(back, f.fake.Restore)
		var callers sync.WaitGroup
		callers.Go(func() {
			l, err := f.cache.Acquire(patient, f.wrapped[0])
			if took := time.Since(begun); err != nil || took < back || took > back+late {
				t.Errorf("%v after %v, want the key after %v", err, took, back)
			}
			l.Release()
		})
		_, err := f.cache.Acquire(hasty, f.wrapped[0])
		if took := time.Since(begun); !errors.Is(err, keyring.ErrUnreachable) || took < back/2-late || took > back/2 {
			t.Errorf("%v after %v, want no answer after %v", err, took, back/2)
		}
		callers.Wait()
	})
}

// TestCacheWaitIsInterrupted: who waits for the service to come back can be interrupted between two questions.
func TestCacheWaitIsInterrupted(t *testing.T) {
	withCache(t, 1, 10, func(t *testing.T, f cacheFixture) {
		f.fake.Outage()
		waiting, cancel := context.WithTimeout(t.Context(), time.Hour)
		const at = 10 * time.Second
		time.AfterFunc(at, cancel)
		begun := time.Now()
		_, err := f.cache.Acquire(waiting, f.wrapped[0])
		if took := time.Since(begun); !errors.Is(err, context.Canceled) || took != at {
			t.Errorf("%v after %v", err, took)
		}
	})
}
