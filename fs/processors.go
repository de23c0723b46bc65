package fs

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// processors lets the Go scheduler use one processor as long as one is enough, and all of them when there is more to do.
//
// Small requests that come one at a time, as from tar, git or make, cost less time to carry out than to hand over. With
// several processors the scheduler adds hand-overs of its own: a thread that waits for the next request gives its processor
// away, a supervising thread is woken with each request, and threads look for work that is not there, on the very processor
// on which the program that asked wants to go on. With one processor nothing of this happens; but then nothing is encrypted
// in parallel, and several programs share that one. So the number follows the time that this process has used of late.
type processors struct {
	all  int                  // how many there are
	set  func(n int)          // makes the scheduler use n of them
	used func() time.Duration // time that the process has used on all processors

	// The current window, for the fast path.
	began atomic.Int64 // Unix nanoseconds; 0 before the first request
	moved atomic.Int64 // bytes of content in requests that are worth several processors

	mu        sync.Mutex    // held while a window is closed; never waited for
	one       bool          // one processor is in use; guarded by mu
	usedAtEnd time.Duration // what used returned last; guarded by mu
	calm      int           // windows in a row that one processor was enough for; guarded by mu
	raised    int64         // when all were last taken into use; guarded by mu
	hold      time.Duration // how long they are kept at least; guarded by mu
}

const (
	// processorWindow is how long use is watched before the number of processors changes. A change stops all goroutines for
	// some 10 µs, so that one in several windows costs nothing.
	processorWindow = 20 * time.Millisecond
	// busyShare and calmShare are shares of one processor's time, in percent. Above the first one processor is not enough;
	// all are given back when less than the second was used of them together.
	busyShare, calmShare = 85, 100
	calmWindows          = 5
	// minHold and maxHold bound how long all processors are kept. The time doubles while they are wanted again soon after.
	minHold, maxHold = 200 * time.Millisecond, 5 * time.Second
	// largeRequest is the size in bytes of reads and writes of content in large files, and movedAtOnce how much of
	// that in one window takes all processors into use without waiting for its end.
	largeRequest = 128 << 10
	movedAtOnce  = 2 << 20
)

// newProcessors returns nil, which does nothing, where there is nothing to choose.
func newProcessors(all int, set func(n int)) *processors {
	if set == nil || all < 2 {
		return nil
	}
	return &processors{all: all, set: set, used: processTime, hold: minHold}
}

// start begins with one processor.
func (p *processors) start() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.one = true
	p.set(1)
}

// request is called with the time of each request.
func (p *processors) request(now int64) {
	if p == nil || now-p.began.Load() < int64(processorWindow) {
		return
	}
	p.close(now)
}

// content is called with the size of each read and write.
func (p *processors) content(size int, now int64) {
	if p == nil || size < largeRequest {
		return
	}
	if p.moved.Add(int64(size)) >= movedAtOnce {
		p.close(now)
	}
}

// close ends a window and begins the next.
func (p *processors) close(now int64) {
	if !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	length := now - p.began.Load()
	moved := p.moved.Swap(0)
	used := p.used()
	share := int64(used-p.usedAtEnd) * 100 / max(length, 1)
	p.began.Store(now)
	p.usedAtEnd = used
	if p.one {
		if moved >= movedAtOnce || (share > busyShare && length < int64(time.Second)) {
			p.raise(now)
		}
		return
	}
	if share < calmShare && moved < movedAtOnce {
		p.calm++
	} else {
		p.calm = 0
	}
	if p.calm >= calmWindows && now-p.raised >= int64(p.hold) {
		p.one, p.calm = true, 0
		p.set(1)
	}
}

// raise takes all processors into use. The caller holds mu.
func (p *processors) raise(now int64) {
	if now-p.raised < 2*int64(p.hold) {
		p.hold = min(2*p.hold, maxHold)
	} else {
		p.hold = minHold
	}
	p.one, p.calm, p.raised = false, 0, now
	p.set(p.all)
}

// processTime returns the time that this process has used on all processors.
func processTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0 // nothing used: one processor is enough
	}
	return time.Duration(t.Nano())
}
