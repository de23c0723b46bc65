package secret

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refusing is an arena whose slabs cannot be locked after the first ones.
func refusing(log *slog.Logger, slabs int) *Arena {
	a := NewArena(log)
	a.mlock = func(b []byte) error {
		if slabs--; slabs < 0 {
			return unix.ENOMEM
		}
		return nil
	}
	return a
}

func TestRefusedLockIsToldOnce(t *testing.T) {
	var out bytes.Buffer
	a := refusing(slog.New(slog.NewTextHandler(&out, nil)), 2)
	cells := slabSize / MaxSize
	for range 2 * cells {
		a.Random(32)
	}
	if out.Len() != 0 {
		t.Errorf("told without a reason: %s", out.String())
	}
	var keys []*Key
	for range 3 * cells {
		keys = append(keys, a.Random(32))
	}
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "RLIMIT_MEMLOCK") {
		t.Errorf("told %d times, want once:\n%s", n, out.String())
	}
	want := Stats{Cells: 5 * cells, LockedBytes: 2 * slabSize, UnlockedBytes: 3 * slabSize}
	if got := a.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
	if keys[0].Equal(keys[1]) {
		t.Error("keys in unlocked memory are not usable")
	}
}

// A log that itself uses the arena must not lock up.
func TestToldWithoutTheLock(t *testing.T) {
	var a *Arena
	reached := false
	a = refusing(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		reached = true
		a.New(1).Wipe()
		return len(p), nil
	}), nil)), 0)
	a.New(1)
	if !reached {
		t.Error("nothing was told")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestManyKeysAreCheap(t *testing.T) {
	const count = 100_000
	a := NewArena(nil)
	keys := make([]*Key, count)
	before := heapInUse()
	for i := range keys {
		keys[i] = a.New(48)
	}
	heap := heapInUse() - before
	s := a.Stats()
	slabs := s.LockedBytes + s.UnlockedBytes
	t.Logf("a key costs %.1f bytes of slabs and %.1f of heap", float64(slabs)/count, float64(heap)/count)
	if slabs > 65*count {
		t.Errorf("%d bytes of slabs for %d keys", slabs, count)
	}
	if heap > 48*count {
		t.Errorf("%d bytes of heap for %d keys", heap, count)
	}
	if s.Cells != count {
		t.Errorf("%d cells are in use, want %d", s.Cells, count)
	}
	for _, k := range keys {
		k.Wipe()
	}
	for range count {
		a.New(48)
	}
	if again := a.Stats(); again.LockedBytes+again.UnlockedBytes != slabs {
		t.Error("wiped cells are not used again")
	}
	runtime.KeepAlive(keys)
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func BenchmarkNewWipe(b *testing.B) {
	a := NewArena(nil)
	b.ReportAllocs()
	for b.Loop() {
		a.New(48).Wipe()
	}
}
