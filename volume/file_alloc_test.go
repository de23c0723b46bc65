package volume

import (
	"runtime"
	"testing"
)

// allocations is testing.AllocsPerRun on all processors, because with one nothing is done in parallel.
func allocations(runs int, f func()) uint64 {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.Mallocs - before.Mallocs) / uint64(runs)
}

// TestFewAllocations: a request of 1 MiB makes hardly any garbage, nor does a smaller one.
func TestFewAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	r := newFileRig(t)
	f := r.create("f")
	defer f.Release()
	const size = 1 << 20
	most := uint64(max(5, 3+min(runtime.GOMAXPROCS(0), maxParts))) // each further processor starts a goroutine
	buf := pattern(1, size)
	for range 4 {
		if _, err := f.WriteAt(buf, f.Size()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		size int
		off  int64
	}{
		{"1 MiB", size, size}, {"128 KiB", 128 << 10, size}, {"4 KiB", 4096, 8192},
	} {
		if n := allocations(50, func() {
			if n, err := f.ReadAt(buf[:c.size], c.off); n < c.size || err != nil {
				t.Fatal(n, err)
			}
		}); n > most {
			t.Errorf("reading %s allocates %v times, want at most %d", c.name, n, most)
		}
		if n := allocations(50, func() {
			if _, err := f.WriteAt(buf[:c.size], c.off); err != nil {
				t.Fatal(err)
			}
		}); n > most {
			t.Errorf("writing %s allocates %v times, want at most %d", c.name, n, most)
		}
	}
}
