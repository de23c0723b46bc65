package keyring_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

func TestBatcherJoins(t *testing.T) {
	for _, c := range []struct {
		name               string
		callers, requests  int
		wantCalls, largest int
	}{
		{"one", 1, 4, 1, 1},
		{"two", 2, 4, 2, 1},
		{"the first alone, the rest together", 100, 4, 2, 99},
		{"one more than fits", 130, 1, 3, 128},
		{"full ones go beside", 400, 4, 5, 128},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture()
				keys, wrapped := f.wrap(t, c.callers)
				f.fake.ResetCounters()
				f.fake.SetDelay(time.Second)
				b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{Requests: c.requests})
				defer b.Close()
				var wg sync.WaitGroup
				for i := range wrapped {
					wg.Go(func() {
						got, err := b.Unwrap(t.Context(), wrapped[i])
						if err != nil || !got.Equal(keys[i]) {
							t.Errorf("caller %d: %v", i, err)
							return
						}
						got.Wipe()
					})
					if i == 0 {
						synctest.Wait() // its request is under way
					}
				}
				wg.Wait()
				got := f.fake.Counters()
				if got.Unwraps != c.wantCalls || got.Largest != c.largest || got.Items != c.callers {
					t.Errorf("%+v; want %d requests of at most %d", got, c.wantCalls, c.largest)
				}
			})
		})
	}
}

func TestBatcherItemAndRequestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		_, wrapped := f.wrap(t, 3)
		wrapped[1] = "fake:v1:AAAA"
		f.fake.SetDelay(time.Second)
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{})
		defer b.Close()
		errs := make([]error, 3)
		ask := func() {
			var wg sync.WaitGroup
			for i := range wrapped {
				wg.Go(func() {
					var key *secret.Key
					key, errs[i] = b.Unwrap(t.Context(), wrapped[i])
					key.Wipe()
				})
			}
			wg.Wait()
		}
		ask()
		if errs[0] != nil || keyring.Class(errs[1]) != keyring.ErrCorrupt || errs[2] != nil {
			t.Errorf("one bad item: %v", errs)
		}
		f.fake.Deny()
		ask()
		for i, err := range errs {
			if keyring.Class(err) != keyring.ErrDenied {
				t.Errorf("caller %d of a denied request: %v", i, err)
			}
		}
	})
}

// A caller who leaves returns at once, harms nobody, and leaks no key.
func TestBatcherCancelledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		keys, wrapped := f.wrap(t, 4)
		f.fake.SetDelay(time.Second)
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{})
		defer b.Close()
		begun := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		stays := func(i int) {
			wg.Go(func() {
				got, err := b.Unwrap(t.Context(), wrapped[i])
				if err != nil || !got.Equal(keys[i]) {
					t.Errorf("caller %d who stayed: %v", i, err)
				}
				got.Wipe()
			})
			synctest.Wait()
		}
		leaves := func(i int) {
			wg.Go(func() {
				if _, err := b.Unwrap(ctx, wrapped[i]); !errors.Is(err, context.Canceled) || time.Since(begun) != 1500*time.Millisecond {
					t.Errorf("caller %d who left: %v after %v", i, err, time.Since(begun))
				}
			})
			synctest.Wait()
		}
		stays(0)  // alone in the first request
		leaves(1) // in the second one
		stays(2)  // likewise
		time.Sleep(1500 * time.Millisecond)
		leaves3 := make(chan error, 1)
		queued, cancelQueued := context.WithCancel(t.Context())
		go func() {
			_, err := b.Unwrap(queued, wrapped[3])
			leaves3 <- err
		}()
		synctest.Wait()
		cancel() // during the second request
		cancelQueued()
		if err := <-leaves3; !errors.Is(err, context.Canceled) {
			t.Errorf("caller who left the queue: %v", err)
		}
		wg.Wait()
		time.Sleep(5 * time.Second)
		c := f.fake.Counters()
		if c.Unwraps != 2 || c.Cancelled != 0 {
			t.Errorf("%+v; want 2 requests, none given up", c)
		}
		f.wantCells(t, "in the end", len(keys))
	})
}

// A request that nobody waits for any more is given up, and the next one goes.
func TestBatcherGivesUpForsakenRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		_, wrapped := f.wrap(t, 2)
		f.fake.SetDelay(time.Hour)
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{Timeout: 24 * time.Hour})
		defer b.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Unwrap(ctx, wrapped[0]); keyring.Class(err) != keyring.ErrUnreachable {
			t.Fatalf("deadline: %v; want unreachable", err)
		}
		synctest.Wait()
		if c := f.fake.Counters(); c.Cancelled != 1 {
			t.Fatalf("%+v; want the request given up", c)
		}
		f.fake.SetDelay(0)
		key, err := b.Unwrap(t.Context(), wrapped[1])
		if err != nil {
			t.Fatal(err)
		}
		key.Wipe()
		f.wantCells(t, "in the end", 2)
	})
}

func TestBatcherClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		_, wrapped := f.wrap(t, 2)
		f.fake.SetDelay(time.Hour)
		b := keyring.NewBatcher(f.fake, keyring.BatcherOptions{})
		errs := make(chan error, 2)
		for _, w := range wrapped { // one under way, one queued
			go func() {
				_, err := b.Unwrap(context.Background(), w)
				errs <- err
			}()
			synctest.Wait()
		}
		b.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, keyring.ErrClosed) {
				t.Errorf("waiting at Close: %v", err)
			}
		}
		if _, err := b.Unwrap(t.Context(), wrapped[0]); !errors.Is(err, keyring.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
