package powercut

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// Image is one directory tree that may be on the disk after a power cut.
type Image struct {
	log   *Log
	tree  *tree
	files map[nodeID]sparse
	how   string
}

// String says what was kept of what was not durable.
func (i *Image) String() string { return i.how }

// Latest returns the tree as it is if nothing is lost.
func (r *Replay) Latest() *Image { return r.image(r.at, keepAll{}) }

// Sample returns one of the trees that the disk may hold if the power fails at the present instant.
func (r *Replay) Sample(rnd *rand.Rand) *Image {
	return r.image(r.cutMetadata(rnd), newFate(rnd))
}

// cutMetadata chooses up to which instant metadata have become durable: often all or nothing of what may.
func (r *Replay) cutMetadata(rnd *rand.Rand) int {
	var ends []int
	for i := r.sure; i < r.at; i++ {
		if r.log.events[i].metadata() {
			ends = append(ends, i+1)
		}
	}
	if len(ends) == 0 || rnd.IntN(4) == 0 {
		return r.sure
	}
	if rnd.IntN(3) == 0 {
		return r.at
	}
	return ends[rnd.IntN(len(ends))]
}

func (r *Replay) image(bound int, f fate) *Image {
	i := &Image{log: r.log, tree: r.tree.clone(), files: map[nodeID]sparse{}}
	lost := 0
	for at := r.sure; at < r.at; at++ {
		switch e := r.log.events[at]; {
		case !e.metadata():
		case at < bound:
			i.tree.apply(e)
		default:
			lost++
		}
	}
	i.how = fmt.Sprintf("metadata before %d are durable, %d later changes lost; data: %v", bound, lost, f)
	var ids []nodeID
	for id := range r.files {
		ids = append(ids, id)
	}
	slices.Sort(ids) // for the same choices from the same seed
	for _, id := range ids {
		c := contentOf(r.log, r.files[id], bound)
		if len(c.changes) == 0 {
			i.files[id] = c.base
			continue
		}
		f := f.of(c)
		i.files[id] = c.fill(f.size(c.sizes()), f.pick)
	}
	return i
}

// fate decides what is left of data that were not synced.
type fate interface {
	fmt.Stringer
	// of returns the fate of one file.
	of(c *content) fileFate
}

type fileFate interface {
	size(sizes []int64) int64
	pick(sector int64, changes []int) int
}

// newFate draws one of several ways to lose data.
func newFate(rnd *rand.Rand) fate {
	switch rnd.IntN(8) {
	case 0:
		return keepAll{}
	case 1:
		return keepNone{}
	case 2, 3:
		return tearLast{rnd: rnd}
	case 4:
		return mix{rnd: rnd, unit: 1}
	case 5:
		return mix{rnd: rnd, unit: pageSize / sectorSize}
	case 6:
		return mix{rnd: rnd, unit: 1 << 40}
	}
	return dropWrites{rnd: rnd}
}

type keepAll struct{}

func (keepAll) String() string                  { return "all kept" }
func (keepAll) of(*content) fileFate            { return keepAll{} }
func (keepAll) size(sizes []int64) int64        { return sizes[len(sizes)-1] }
func (keepAll) pick(_ int64, changes []int) int { return len(changes) }

type keepNone struct{}

func (keepNone) String() string           { return "none kept" }
func (keepNone) of(*content) fileFate     { return keepNone{} }
func (keepNone) size(sizes []int64) int64 { return sizes[0] }
func (keepNone) pick(int64, []int) int    { return 0 }

// anySize draws one of the sizes, or one between two of them that ends at a page.
func anySize(rnd *rand.Rand, sizes []int64) int64 {
	i := rnd.IntN(len(sizes))
	if i == 0 || sizes[i]-sizes[i-1] < pageSize || rnd.IntN(2) == 0 {
		return sizes[i]
	}
	first := sizes[i-1]/pageSize + 1
	return min(sizes[i], (first+rnd.Int64N(sizes[i]/pageSize-first+1))*pageSize)
}

// tearLast keeps all but the last change, of which it keeps what is before some sector, or behind it.
type tearLast struct {
	rnd  *rand.Rand
	last int
	at   int64
	tail bool
}

func (tearLast) String() string { return "the last change torn" }

func (t tearLast) of(c *content) fileFate {
	t.last = len(c.changes) - 1
	ch := c.changes[t.last]
	sectors := int64(1)
	if ch.data != nil {
		sectors = (ch.end-1)/sectorSize - ch.off/sectorSize + 1
	}
	t.at = ch.off/sectorSize + t.rnd.Int64N(sectors+1)
	t.tail = t.rnd.IntN(3) == 0
	return t
}

func (t tearLast) size(sizes []int64) int64 { return anySize(t.rnd, sizes[max(0, len(sizes)-2):]) }

func (t tearLast) pick(sector int64, changes []int) int {
	n := len(changes)
	if changes[n-1] == t.last && (sector < t.at) == t.tail {
		n--
	}
	return n
}

// mix draws for each run of sectors after which change it was written last.
type mix struct {
	rnd  *rand.Rand
	unit int64 // sectors
	seen map[int64]float64
}

func (m mix) String() string           { return fmt.Sprintf("any version for each %d sectors", m.unit) }
func (m mix) size(sizes []int64) int64 { return anySize(m.rnd, sizes) }

func (m mix) of(*content) fileFate {
	m.seen = map[int64]float64{}
	return m
}

func (m mix) pick(sector int64, changes []int) int {
	u, ok := m.seen[sector/m.unit]
	if !ok {
		u = m.rnd.Float64()
		m.seen[sector/m.unit] = u
	}
	return int(u * float64(len(changes)+1))
}

// dropWrites keeps each change whole, or not at all.
type dropWrites struct {
	rnd  *rand.Rand
	kept []bool
}

func (dropWrites) String() string             { return "some changes lost as a whole" }
func (d dropWrites) size(sizes []int64) int64 { return anySize(d.rnd, sizes) }

func (d dropWrites) of(c *content) fileFate {
	d.kept = make([]bool, len(c.changes))
	for i := range d.kept {
		d.kept[i] = d.rnd.IntN(2) == 0
	}
	return d
}

func (d dropWrites) pick(_ int64, changes []int) int {
	n := len(changes)
	for n > 0 && !d.kept[changes[n-1]] {
		n--
	}
	return n
}
