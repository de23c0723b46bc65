package keyring_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
)

// statsOf returns those of one kind of request.
func statsOf(t *testing.T, m *keyring.Meter, op string) keyring.OpStats {
	t.Helper()
	for _, s := range m.Stats() {
		if s.Op == op {
			return s
		}
	}
	t.Fatalf("no statistics of %q", op)
	return keyring.OpStats{}
}

// TestObservedIsAKeyring: nothing but the counting is added.
func TestObservedIsAKeyring(t *testing.T) {
	keyringtest.Run(t, func(*testing.T) keyringtest.Fixture {
		arena := secret.NewArena(nil)
		fake := keyringtest.NewFake(arena)
		kr, _ := keyring.Observe(fake)
		other, _ := keyring.Observe(keyringtest.NewFake(arena))
		return keyringtest.Fixture{Arena: arena, Keyring: kr, Other: other, Rotate: func(*testing.T) { fake.Rotate() }}
	})
}

type plainKeyring struct{ keyring.Keyring }

func TestObservedAbilities(t *testing.T) {
	fake := keyringtest.NewFake(secret.NewArena(nil))
	type rewraps struct {
		keyring.Keyring
		keyring.Rewrapper
	}
	type reads struct {
		keyring.Keyring
		keyring.VersionReader
	}
	for _, kr := range []keyring.Keyring{plainKeyring{fake}, rewraps{fake, fake}, reads{fake, fake}, fake} {
		_, wantRewrap := kr.(keyring.Rewrapper)
		_, wantVersion := kr.(keyring.VersionReader)
		o, _ := keyring.Observe(kr)
		_, isRewrapper := o.(keyring.Rewrapper)
		_, isReader := o.(keyring.VersionReader)
		if isRewrapper != wantRewrap || isReader != wantVersion {
			t.Errorf("%T: rewraps %t, reads versions %t", kr, isRewrapper, isReader)
		}
	}
}

func TestObservedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		kr, m := keyring.Observe(f.fake)
		keys, wrapped := f.wrap(t, 3)
		defer func() {
			for _, k := range keys {
				k.Wipe()
			}
		}()
		f.fake.SetDelay(20 * time.Millisecond)
		if _, err := kr.Wrap(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		f.fake.FailItem(wrapped[1], &keyring.Error{Class: keyring.ErrRevoked})
		for range 2 {
			results, err := kr.Unwrap(t.Context(), wrapped)
			if err != nil || results[1].Err == nil {
				t.Fatal(err, results[1].Err)
			}
			results[0].Key.Wipe()
			results[2].Key.Wipe()
		}
		if _, err := kr.(keyring.Rewrapper).Rewrap(t.Context(), wrapped); err != nil {
			t.Fatal(err)
		}
		if _, err := kr.(keyring.VersionReader).LatestVersion(t.Context()); err != nil {
			t.Fatal(err)
		}

		f.fake.Outage()
		_, _ = kr.Unwrap(t.Context(), wrapped)
		f.fake.Deny()
		_, _ = kr.Wrap(t.Context(), keys)
		f.fake.SetFault(errors.New("without a class"))
		_, _ = kr.Wrap(t.Context(), keys)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = kr.Wrap(ctx, keys)

		for _, want := range []keyring.OpStats{
			{Op: "wrap", Requests: 4, Items: 12, Errors: keyring.ErrorCounts{Denied: 1, Other: 1, Cancelled: 1}},
			{Op: "unwrap", Requests: 3, Items: 9, Errors: keyring.ErrorCounts{Revoked: 2, Unreachable: 1}},
			{Op: "rewrap", Requests: 1, Items: 3, Errors: keyring.ErrorCounts{Revoked: 1}},
			{Op: "version", Requests: 1},
		} {
			got := statsOf(t, m, want.Op)
			if l := got.Latency; l.Window != want.Requests || l.Buckets[len(l.Buckets)-1].Count != want.Requests {
				t.Errorf("%s: latencies of %d requests, want %d", want.Op, l.Window, want.Requests)
			}
			got.Latency = keyring.Latency{}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		if e := statsOf(t, m, "wrap").Errors; e.Total() != 2 {
			t.Errorf("%d errors, want 2", e.Total())
		}
		if sum := statsOf(t, m, "unwrap").Latency.Sum; sum != 60*time.Millisecond {
			t.Errorf("requests took %v, want 60ms", sum)
		}
	})
}

// near tells whether a quantile is as exact as promised.
func near(got, want time.Duration) bool {
	return got > want*4/5 && got < want*6/5
}

func TestObservedLatencyForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		kr, m := keyring.Observe(f.fake)
		ask := func(n int, d time.Duration) {
			f.fake.SetDelay(d)
			for range n {
				if _, err := kr.Unwrap(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := func(n uint64, p50, p90, p99 time.Duration) {
			t.Helper()
			l := statsOf(t, m, "unwrap").Latency
			if l.Window != n || !near(l.P50, p50) || !near(l.P90, p90) || !near(l.P99, p99) {
				t.Errorf("of %d: %v %v %v, want of %d: %v %v %v", l.Window, l.P50, l.P90, l.P99, n, p50, p90, p99)
			}
		}
		ask(80, time.Millisecond)
		ask(15, 30*time.Millisecond)
		ask(5, time.Second)
		want(100, time.Millisecond, 30*time.Millisecond, time.Second)

		time.Sleep(3 * time.Minute)
		ask(100, 100*time.Millisecond)
		want(200, 100*time.Millisecond, 100*time.Millisecond, time.Second)
		time.Sleep(2 * time.Minute) // the first hundred are too old
		want(100, 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond)
		time.Sleep(time.Hour)
		l := statsOf(t, m, "unwrap").Latency
		if l.Window != 0 || l.P50 != 0 || l.P99 != 0 {
			t.Errorf("after an hour: %+v", l)
		}
		if n := l.Buckets[len(l.Buckets)-1].Count; n != 200 {
			t.Errorf("%d requests in all, want 200", n)
		}
	})
}

func TestPoolStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture()
		p := keyring.NewPool(f.fake, f.gen, keyring.PoolOptions{Size: 10, LowWater: 2})
		defer p.Close()
		synctest.Wait()
		if s := p.Stats(); s != (keyring.PoolStats{Ready: 10, Target: 10}) {
			t.Errorf("%+v", s)
		}
		f.fake.Outage()
		for range 10 {
			fresh, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fresh.Key.Wipe()
		}
		if _, err := p.Get(t.Context()); !errors.Is(err, keyring.ErrUnreachable) {
			t.Fatal(err)
		}
		if s := p.Stats(); s != (keyring.PoolStats{Ready: 0, Target: 20}) {
			t.Errorf("after a starved caller: %+v", s)
		}
	})
}
