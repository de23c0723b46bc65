package powercut

import (
	"maps"
	"math"
	"slices"
)

const (
	sectorSize = 512  // a disk writes each of them whole or not at all
	pageSize   = 4096 // the kernel's page, and the unit in which a file grows on disk
)

// change is what an event means for the content of one file.
type change struct {
	data     []byte // of a write; nil: zeros
	off, end int64
	size     int64 // of a resize; otherwise -1
	lost     bool  // of metadata: it did not become durable
}

// content is what the disk may hold of a file: what was durable, and what came since, in order.
type content struct {
	base    sparse
	changes []change
}

// contentOf takes metadata before the event number bound for durable.
func contentOf(l *Log, f *file, bound int) *content {
	c := &content{base: f.data}
	for _, at := range f.pending {
		lost := at >= bound
		switch e := l.events[at].(type) {
		case write:
			c.changes = append(c.changes, change{data: e.data, off: e.off, end: e.end(), size: -1})
		case resize:
			c.changes = append(c.changes, change{off: e.size, end: math.MaxInt64, size: e.size, lost: lost})
		case punch:
			c.changes = append(c.changes, change{off: e.off, end: e.end, size: -1, lost: lost})
		}
	}
	return c
}

// sizes returns the sizes that the file may have, in the order in which it got them.
func (c *content) sizes() []int64 {
	sizes := []int64{c.base.size}
	for _, ch := range c.changes {
		switch {
		case ch.size >= 0 && ch.lost:
			return sizes // what made it longer then is lost as well
		case ch.size >= 0:
			sizes = []int64{ch.size}
		case ch.data != nil && ch.end > sizes[len(sizes)-1]:
			sizes = append(sizes, ch.end)
		}
	}
	return sizes
}

// fill returns the content with the given size. pick is told the number of a sector and which changes touch it, and returns after
// how many of them it was written last.
func (c *content) fill(size int64, pick func(sector int64, changes []int) int) sparse {
	touching := map[int64][]int{} // by sector
	for i, ch := range c.changes {
		for sector := ch.off / sectorSize; sector*sectorSize < min(ch.end, max(size, c.base.size)); sector++ {
			touching[sector] = append(touching[sector], i)
		}
	}
	pages := map[int64][]byte{}
	for _, sector := range slices.Sorted(maps.Keys(touching)) {
		at := sector * sectorSize
		page := pages[at/pageSize]
		if page == nil {
			page = make([]byte, pageSize)
			c.base.read(page, at-at%pageSize)
			pages[at/pageSize] = page
		}
		c.sector(page[at%pageSize:][:sectorSize], at, touching[sector], pick(sector, touching[sector]))
	}
	return c.base.with(size, pages)
}

// sector makes the first kept of the changes to the sector at the given offset, and clears what durable metadata clear of it
// later.
func (c *content) sector(b []byte, at int64, changes []int, kept int) {
	for i, n := range changes {
		ch := c.changes[n]
		switch {
		case ch.data != nil && i < kept:
			copyAt(b, at, ch.data, ch.off)
		case ch.data != nil:
		case !ch.lost:
			clearAt(b, at, ch.off, ch.end)
		case !ch.endsIn(at / pageSize):
			kept = 0 // data came to a place that the file does not have
		case i < kept:
			clearAt(b, at, ch.off, ch.end)
		}
	}
}

// endsIn reports whether the range begins or ends inside a page, the rest of which then stays.
func (ch change) endsIn(page int64) bool {
	inside := func(off int64) bool { return off/pageSize == page && off%pageSize != 0 }
	return inside(ch.off) || inside(ch.end)
}

// copyAt copies data, which begins at off, to b, which begins at at, as far as they overlap.
func copyAt(b []byte, at int64, data []byte, off int64) {
	if off < at {
		data, off = data[min(int64(len(data)), at-off):], at
	}
	copy(b[min(int64(len(b)), off-at):], data)
}

func clearAt(b []byte, at, from, to int64) {
	from, to = max(from-at, 0), min(to-at, int64(len(b)))
	if from < to {
		clear(b[from:to])
	}
}
