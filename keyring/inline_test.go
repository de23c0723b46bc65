package keyring_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/keyring"
)

// inGoroutine is a source that panics where it is told to, which only its own goroutine can recover.
type inGoroutine struct {
	keyring.Unwrapper
	panics bool
}

func (s *inGoroutine) UnwrapAll(ctx context.Context, wrapped []keyring.Wrapped) []keyring.Unwrapped {
	if s.panics {
		panic(wrapped[0])
	}
	return s.Unwrapper.UnwrapAll(ctx, wrapped)
}

func TestCacheInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := cacheFixture{fixture: newFixture()}
		f.keys, f.wrapped = f.wrap(t, 3)
		f.fake.ResetCounters()
		src := &inGoroutine{Unwrapper: keyring.Unbatched(f.fake)}
		f.cache = keyring.NewCache(src, keyring.CacheOptions{Size: 10, TTL: -1, Inline: true})

		f.fake.SetDelay(time.Second) // so that all come before there is an answer
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { f.acquire(t, 0).Release() })
		}
		wg.Wait()
		f.wantUnwraps(t, "20 callers of one key", 1)

		f.fake.FailItem(f.wrapped[1], &keyring.Error{Class: keyring.ErrRevoked, Op: "unwrap"})
		if _, err := f.cache.Acquire(t.Context(), f.wrapped[1]); keyring.Class(err) != keyring.ErrRevoked {
			t.Errorf("revoked: %v", err)
		}
		src.panics = true
		func() {
			defer func() {
				if recover() != f.wrapped[2] {
					t.Error("the source was not asked in the goroutine of the caller")
				}
			}()
			_, _ = f.cache.Acquire(t.Context(), f.wrapped[2])
		}()
	})
}
