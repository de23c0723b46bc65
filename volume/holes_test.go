package volume

import (
	"testing"

	"pgregory.net/rapid"
)

// TestHoleSetMatchesModel compares the set with one flag for each block.
func TestHoleSetMatchesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const blocks = 200
		var set holeSet
		var model [blocks]bool
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			lo := rapid.Int64Range(0, blocks).Draw(t, "lo")
			hi := rapid.Int64Range(0, blocks).Draw(t, "hi")
			add := rapid.Bool().Draw(t, "add")
			if add {
				set.add(lo, hi)
			} else {
				set.remove(lo, hi)
			}
			for b := lo; b < hi; b++ {
				model[b] = add
			}
			checkHoles(t, set, model[:])
		}
	})
}

func checkHoles(t *rapid.T, set holeSet, model []bool) {
	got := make([]bool, len(model))
	last := int64(-1)
	for _, r := range set.ranges {
		if r.lo <= last || r.lo >= r.hi {
			t.Fatalf("ranges out of order, empty, or touching: %v", set.ranges)
		}
		last = r.hi
		for b := r.lo; b < r.hi; b++ {
			got[b] = true
		}
	}
	for b := range model {
		if got[b] != model[b] {
			t.Fatalf("block %d: %v, want %v in %v", b, got[b], model[b], set.ranges)
		}
	}
}

// TestHoleSetIsBounded: a file with very many holes is just known to have some.
func TestHoleSetIsBounded(t *testing.T) {
	var set holeSet
	for i := range int64(10 * maxHoles) {
		set.add(3*i, 3*i+1)
	}
	if len(set.ranges) > maxHoles || set.empty() {
		t.Errorf("%d ranges, empty %v", len(set.ranges), set.empty())
	}
	set.remove(0, wholeFile)
	if set.empty() {
		t.Error("holes that are not listed any more cannot be known to be gone")
	}
}
