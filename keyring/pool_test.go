package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
)

func TestPoolFillsAheadInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 300, LowWater: 100, Batch: 128})
		defer p.Close()
		time.Sleep(time.Second) // the last few come when it is quiet
		synctest.Wait()
		if c := f.fake.Counters(); p.Len() != 300 || c.Wraps != 3 || c.Items != 300 || c.Largest != 128 {
			t.Fatalf("%d ready after %+v; want 300 after 3 requests", p.Len(), c)
		}
		// Down to the low-water mark nothing is asked.
		seen := make(map[keyring.Wrapped]bool)
		take := func(n int) {
			t.Helper()
			for range n {
				fresh, err := p.Get(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if seen[fresh.Wrapped] {
					t.Fatal("the same key was given twice")
				}
				seen[fresh.Wrapped] = true
				out, err := f.fake.Unwrap(t.Context(), []keyring.Wrapped{fresh.Wrapped})
				if err != nil || !out[0].Key.Equal(fresh.Key) {
					t.Fatalf("key and wrapped form do not match: %v", err)
				}
				out[0].Key.Wipe()
				fresh.Key.Wipe()
			}
		}
		take(200)
		synctest.Wait()
		if n := f.fake.Counters().Wraps; n != 3 {
			t.Fatalf("%d requests at the low-water mark; want 3", n)
		}
		take(1)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := f.fake.Counters().Wraps; p.Len() != 300 || n != 5 {
			t.Fatalf("below it: %d ready after %d requests; want 300 after 5", p.Len(), n)
		}
		p.Close()
		f.wantCells(t, "closed", 0)
		if _, err := p.Get(t.Context()); !errors.Is(err, keyring.ErrClosed) {
			t.Fatalf("Get after Close: %v", err)
		}
	})
}

// TestPoolAsksInFullBatches: what is taken while a request is under way must not
// cause one of its own.
func TestPoolAsksInFullBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.fake.SetDelay(10 * time.Millisecond)
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{})
		defer p.Close()
		time.Sleep(time.Second)
		before := f.fake.Counters().Wraps
		const keys = 5000
		for range keys {
			begun := time.Now()
			fresh, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Key.Wipe()
			if waited := time.Since(begun); waited != 0 {
				t.Fatalf("creation waited %v", waited)
			}
			time.Sleep(200 * time.Microsecond)
		}
		if n := f.fake.Counters().Wraps - before; n > keys/keyring.DefaultBatch+1 {
			t.Errorf("%d requests for %d keys", n, keys)
		}
	})
}

func TestPoolOnlyEmptyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.fake.SetDelay(time.Second)
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 4, LowWater: 3, Batch: 4})
		defer p.Close()
		elapsed := func() time.Duration {
			begun := time.Now()
			fresh, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Key.Wipe()
			return time.Since(begun)
		}
		if d := elapsed(); d != time.Second {
			t.Fatalf("the empty pool waited %v; want the request's second", d)
		}
		for i := range 3 {
			if d := elapsed(); d != 0 {
				t.Fatalf("key %d waited %v", i, d)
			}
		}
		// Many at once on an empty pool share the requests.
		before := f.fake.Counters()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { elapsed() })
		}
		wg.Wait()
		if n := f.fake.Counters().Wraps - before.Wraps; n > 7 {
			t.Fatalf("%d requests for 20 callers", n)
		}
	})
}

func TestPoolDuringOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		var log bytes.Buffer
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 3, LowWater: 3, RetryMin: time.Second, RetryMax: 4 * time.Second,
			Log: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		f.fake.Outage()
		for range 3 { // the pool lasts
			fresh, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Key.Wipe()
		}
		if _, err := p.Get(t.Context()); keyring.Class(err) != keyring.ErrUnreachable {
			t.Fatalf("empty during an outage: %v; want unreachable", err)
		}
		patient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := p.Get(patient); !errors.Is(err, keyring.ErrUnreachable) || time.Since(begun) < 9*time.Second {
			t.Fatalf("empty, with 10 s to wait: %v after %v", err, time.Since(begun))
		}
		f.fake.Deny()
		begun = time.Now()
		if _, err := p.Get(t.Context()); keyring.Class(err) != keyring.ErrDenied || time.Since(begun) != 0 {
			t.Fatalf("empty and denied: %v after %v; want denied at once", err, time.Since(begun))
		}
		// In the background it tries less and less often, but again within 4 s.
		before := f.fake.Counters().Wraps
		time.Sleep(time.Minute)
		if n := f.fake.Counters().Wraps - before; n < 14 || n > 22 {
			t.Errorf("%d tries in a minute; want one in 3 to 4 s", n)
		}
		f.fake.Restore()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if p.Len() != 6 { // it was found empty, so it holds twice as many
			t.Errorf("%d ready 4 s after the outage; want 6", p.Len())
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("%d lines in the log; want one:\n%s", n, log.String())
		}
		p.Close()
		f.wantCells(t, "closed", 0)
	})
}

func TestPoolCancelAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.fake.SetDelay(time.Hour)
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 2, Timeout: 24 * time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := p.Get(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Get(ctx); keyring.Class(err) != keyring.ErrUnreachable {
			t.Fatalf("deadline: %v; want unreachable", err)
		}
		errs := make(chan error, 1)
		go func() {
			_, err := p.Get(context.Background())
			errs <- err
		}()
		synctest.Wait()
		p.Close()
		p.Close()
		if err := <-errs; !errors.Is(err, keyring.ErrClosed) {
			t.Fatalf("waiting at Close: %v; want closed", err)
		}
		f.wantCells(t, "closed", 0)
	})
}

func TestPoolRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		f.fake.SetDelay(time.Hour)
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 2, Timeout: 5 * time.Second})
		defer p.Close()
		begun := time.Now()
		_, err := p.Get(t.Context())
		if err == nil || time.Since(begun) != 5*time.Second {
			t.Fatalf("a request without end: %v after %v; want an error after 5 s", err, time.Since(begun))
		}
		if keyring.Class(err) != keyring.ErrUnreachable {
			t.Errorf("class %v; want unreachable", keyring.Class(err))
		}
	})
}

// TestPoolWrapsOldKeysAnew: after a rotation no key that the pool hands out may
// be under the old KEK version for longer than MaxAge.
func TestPoolWrapsOldKeysAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arena := secret.NewArena(nil)
		kr := keyringtest.NewFake(arena)
		p := keyring.NewPool(kr, func() *secret.Key { return arena.Random(48) }, keyring.PoolOptions{MaxAge: time.Minute})
		defer p.Close()
		synctest.Wait()
		version := kr.Rotate()
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if n := p.Len(); n != 256 {
			t.Errorf("%d keys ready", n)
		}
		for range 256 {
			f, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if v, err := f.Wrapped.Version(); err != nil || v != version {
				t.Fatalf("version %d, %v; the newest is %d", v, err, version)
			}
			f.Key.Wipe()
		}
	})
}

// TestPoolKeepsOldKeysDuringOutage: no answer is no reason to give up keys.
func TestPoolKeepsOldKeysDuringOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arena := secret.NewArena(nil)
		kr := keyringtest.NewFake(arena)
		p := keyring.NewPool(kr, func() *secret.Key { return arena.Random(48) }, keyring.PoolOptions{MaxAge: time.Minute})
		defer p.Close()
		synctest.Wait()
		kr.Outage()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := p.Len(); n != 256 {
			t.Errorf("%d keys ready during an outage", n)
		}
		kr.Deny()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := p.Len(); n != 0 {
			t.Errorf("%d keys ready after a refusal", n)
		}
	})
}

// TestPoolServesWhileItRenews: old keys stay until those that replace them are
// there, so creation goes on although the service takes its time.
func TestPoolServesWhileItRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		const size = 100
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: size, LowWater: 1, MaxAge: time.Minute})
		synctest.Wait()
		version := f.fake.Rotate()
		f.fake.SetDelay(20 * time.Second)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := f.fake.Counters().Wraps; n != 2 || p.Len() != size {
			t.Fatalf("%d ready and %d requests; want %d and a renewal under way", p.Len(), n, size)
		}
		get := func() (waited time.Duration, v int) {
			begun := time.Now()
			fresh, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Key.Wipe()
			v, err = fresh.Wrapped.Version()
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(begun), v
		}
		for i := range size {
			if waited, v := get(); waited != 0 || v != version-1 {
				t.Fatalf("key %d: version %d after %v", i, v, waited)
			}
		}
		if waited, v := get(); waited != 19*time.Second || v != version {
			t.Errorf("the empty pool: version %d after %v; want %d with the end of the renewal", v, waited, version)
		}
		p.Close()
		f.wantCells(t, "closed", 0)
	})
}

// TestPoolGrowsWithDemand: a pool that was found empty holds more, and less
// again when nobody asks.
func TestPoolGrowsWithDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arena := secret.NewArena(nil)
		kr := keyringtest.NewFake(arena)
		p := keyring.NewPool(kr, func() *secret.Key { return arena.Random(48) }, keyring.PoolOptions{Size: 16, MaxAge: time.Minute})
		defer p.Close()
		synctest.Wait()
		for range 17 {
			f, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f.Key.Wipe()
		}
		synctest.Wait()
		if n := p.Len(); n <= 16 || n > 32 {
			t.Errorf("%d keys ready after the pool was found empty", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait() // the keys of this very moment's renewal are back
		for p.Len() > 0 {
			f, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			f.Key.Wipe()
			synctest.Wait()
			if n := p.Len(); n <= 12 {
				return
			}
		}
		t.Error("the pool never shrank")
	})
}
