package volume

import "sort"

// maxHoles bounds the memory that one file's hole list may take. A file with more holes is simply known to be sparse.
const maxHoles = 256

// holeSet is a set of block ranges, disjoint and in order. It exists so that a file whose gaps were all filled again, as
// happens when the kernel writes a large file out of order, is sealed as one without holes, in which a block of zeros
// is an error.
type holeSet struct {
	ranges   []blockRange
	overflow bool // more than maxHoles: ranges is not complete any more
}

type blockRange struct{ lo, hi int64 }

func (h *holeSet) empty() bool { return len(h.ranges) == 0 && !h.overflow }

// add marks the blocks [lo, hi) as holes.
func (h *holeSet) add(lo, hi int64) {
	if lo >= hi || h.overflow {
		return
	}
	first := sort.Search(len(h.ranges), func(i int) bool { return h.ranges[i].hi >= lo })
	last := first
	for last < len(h.ranges) && h.ranges[last].lo <= hi {
		lo, hi = min(lo, h.ranges[last].lo), max(hi, h.ranges[last].hi)
		last++
	}
	h.splice(first, last, blockRange{lo, hi})
}

// remove marks the blocks [lo, hi) as written.
func (h *holeSet) remove(lo, hi int64) {
	if lo >= hi || len(h.ranges) == 0 {
		return
	}
	first := sort.Search(len(h.ranges), func(i int) bool { return h.ranges[i].hi > lo })
	last := first
	var keep []blockRange
	for last < len(h.ranges) && h.ranges[last].lo < hi {
		r := h.ranges[last]
		if r.lo < lo {
			keep = append(keep, blockRange{r.lo, lo})
		}
		if r.hi > hi {
			keep = append(keep, blockRange{hi, r.hi})
		}
		last++
	}
	if first < last {
		h.splice(first, last, keep...)
	}
}

// splice replaces ranges[first:last].
func (h *holeSet) splice(first, last int, with ...blockRange) {
	tail := append(with, h.ranges[last:]...)
	h.ranges = append(h.ranges[:first], tail...)
	if len(h.ranges) > maxHoles {
		h.ranges, h.overflow = nil, true
	}
}
