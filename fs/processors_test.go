package fs

import (
	"slices"
	"testing"
	"time"
)

// processorsRig drives processors with a clock and a use of processors of its own.
type processorsRig struct {
	p    *processors
	now  int64
	used time.Duration
	set  []int
}

func newProcessorsRig() *processorsRig {
	r := &processorsRig{now: int64(time.Hour)}
	r.p = newProcessors(4, func(n int) { r.set = append(r.set, n) })
	r.p.used = func() time.Duration { return r.used }
	r.p.start()
	r.p.request(r.now)
	return r
}

// windows lets n windows pass in which the process uses so many percent of one processor.
func (r *processorsRig) windows(n, percent int) {
	for range n {
		r.now += int64(processorWindow)
		r.used += processorWindow * time.Duration(percent) / 100
		r.p.request(r.now)
	}
}

func (r *processorsRig) want(t *testing.T, when string, set ...int) {
	t.Helper()
	if !slices.Equal(r.set, set) {
		t.Errorf("%s: the numbers of processors were %v, want %v", when, r.set, set)
	}
}

func TestProcessorsFollowUse(t *testing.T) {
	r := newProcessorsRig()
	r.want(t, "nothing to do", 1)
	r.windows(50, 70)
	r.want(t, "small requests one at a time", 1)
	r.windows(1, 95)
	r.want(t, "one processor is not enough", 1, 4)
	r.windows(50, 180)
	r.want(t, "two processors busy", 1, 4)
	r.windows(calmWindows, 70)
	r.want(t, "small requests one at a time again", 1, 4, 1)
}

func TestProcessorsDoNotFlap(t *testing.T) {
	r := newProcessorsRig()
	for range 100 {
		r.windows(calmWindows+1, 50)
		r.windows(1, 95)
	}
	if changes := len(r.set); changes > 16 {
		t.Errorf("the number of processors changed %d times in %v", changes, time.Duration(r.now)-time.Hour)
	}
	r.windows(int(maxHold/processorWindow)+calmWindows, 50)
	if r.set[len(r.set)-1] != 1 {
		t.Errorf("after it all %d processors are in use, want 1", r.set[len(r.set)-1])
	}
}

func TestProcessorsTakenForLargeRequests(t *testing.T) {
	r := newProcessorsRig()
	r.windows(20, 50)
	r.want(t, "small requests", 1)
	for range 100 {
		r.p.content(64<<10, r.now)
	}
	r.want(t, "requests that are not carried out in parallel", 1)
	r.p.content(1<<20, r.now)
	r.want(t, "one large request", 1)
	r.p.content(1<<20, r.now)
	r.want(t, "several in one window", 1, 4)
}

func TestProcessorsLeftAlone(t *testing.T) {
	newProcessors(4, nil).request(int64(time.Hour))
	if p := newProcessors(1, func(int) { t.Error("changed") }); p != nil {
		t.Error("with one processor there is nothing to choose")
	}
}
