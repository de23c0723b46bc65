package fusedev

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Server lets workers carry out requests.
//
// A worker reads a request and carries it out itself. Meanwhile nobody reads, if it was the only one: handing that over would
// cost more than most requests take. What keeps one long request from holding up all others are four rules. Somebody else
// reads
//
//   - at once, if requests have taken long of late: then the storage, or the key service, is what all wait for;
//   - at once, if the request is large, and while there are processors for it, so that several encrypt;
//   - if requests come faster than one worker carries them out (see worker.behind), but not with any number of workers;
//   - otherwise as soon as the watch sees that the only worker has been busy for long, a few milliseconds at most.
//
// Of those who read only one waits; others with nothing to do are put aside.
//
// LOCK ORDER: mu is taken last and never held while something waits.
type Server struct {
	fd      int
	opts    Options
	log     *slog.Logger
	clock   func() time.Duration // since the start
	ending  chan struct{}        // closed at the end
	running sync.WaitGroup       // workers

	patience patience // belongs to the worker that waits

	mu      sync.Mutex
	ended   bool                 // the connection has; guarded by mu
	reading int                  // workers that read, or are about to; guarded by mu
	idle    []*worker            // put aside, the one that was last at the end; guarded by mu
	all     map[*worker]struct{} // guarded by mu
	overdue time.Duration        // when somebody has to read although none is free; set as reading becomes 0; guarded by mu
	eager   time.Duration        // until when somebody else reads at once; guarded by mu

	watch    *time.Timer // nil before the first request; guarded by mu
	watching bool        // the timer is set; guarded by mu
	requests uint64      // taken; guarded by mu

	processors int64
	underWay   atomic.Int64 // requests
}

const (
	// largeRequest is how many bytes a request moves that is worth handing over reading for.
	largeRequest = 64 << 10
	// watchEvery is how often the watch looks; a sole worker that is busy for longer than the other two takes long.
	watchEvery, longRequest, longLargeRequest = time.Millisecond, time.Millisecond, 3 * time.Millisecond
	// waitingReads is how many requests beyond the number of processors are worth carrying out at once, since they may wait for a disk.
	waitingReads = 8
	// A request that is not large and took slowRequest has probably waited for a disk: for 20 times as long, but at most for eagerFor,
	// reading is handed over at once.
	slowRequest, eagerFor = 200 * time.Microsecond, 100 * time.Millisecond
	// idleWatches is how often the watch looks in vain before it rests.
	idleWatches = 2
	// interruptEvery is how often what is under way is interrupted after the end.
	interruptEvery = 10 * time.Millisecond
	// idleKept is how many workers are kept that have nothing to do.
	idleKept = 16
)

func newServer(fd int, o Options) *Server {
	start := time.Now()
	s := &Server{
		fd: fd, opts: o, log: o.Log, all: map[*worker]struct{}{}, ending: make(chan struct{}), processors: int64(runtime.GOMAXPROCS(0)),
		clock: func() time.Duration { return time.Since(start) },
	}
	if o.Restless {
		s.patience.limit = longestPatience
	}
	return s
}

// run returns when all workers have ended.
func (s *Server) run() {
	s.mu.Lock()
	s.call()
	s.mu.Unlock()
	s.waitForWorkers()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.Stop()
	}
}

// waitForWorkers returns when all workers have ended. Once the connection has, nobody waits for what is under way any more, so it is
// interrupted, again and again: a request that has just been read can not be interrupted yet.
func (s *Server) waitForWorkers() {
	<-s.ending // the last worker goes no sooner
	gone := make(chan struct{})
	go func() {
		s.running.Wait()
		close(gone)
	}()
	if s.opts.Ending != nil {
		s.opts.Ending()
	}
	for {
		s.interruptAll()
		select {
		case <-gone:
			return
		case <-time.After(interruptEvery):
		}
	}
}

// agree carries out the first request, INIT, before there are any workers: all of them use what is agreed upon in it. It returns
// false if the connection has ended before.
func (s *Server) agree() bool {
	s.reading = 1
	first := newWorker(s)
	first.begin()
	n, err := first.read()
	s.reading = 0
	if err != nil || n < inHeaderSize {
		s.end(err)
		return false
	}
	first.carryOut(first.request[:n])
	return true
}

// call has another worker read. The caller holds mu.
func (s *Server) call() {
	s.reading++
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		w.wake <- struct{}{}
		return
	}
	w := newWorker(s)
	s.all[w] = struct{}{}
	s.running.Add(1)
	go w.run()
}

// take says that a worker has a request that moves n bytes and reads no more, and returns the time. behind tells whether requests
// come faster than it carries them out.
func (s *Server) take(n int, behind bool) (now time.Duration) {
	now = s.clock()
	s.underWay.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.reading--
	if s.reading > 0 {
		return now
	}
	if now < s.eager || s.worthwhile(n, behind) {
		s.call()
		return now
	}
	s.overdue = now + longRequest
	if n >= largeRequest {
		s.overdue = now + longLargeRequest
	}
	if !s.watching {
		s.startWatch()
	}
	return now
}

// worthwhile tells whether another worker can do something useful beside one with a request that moves n bytes. What is large
// keeps a processor busy; what is not may wait for a disk.
func (s *Server) worthwhile(n int, behind bool) bool {
	busy := s.underWay.Load()
	if n >= largeRequest {
		return busy < s.processors
	}
	return behind && busy < s.processors+waitingReads
}

// resume says that a worker has answered a request that moved n bytes, after took, and reads again.
func (s *Server) resume(took time.Duration, n int) {
	s.underWay.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading++
	if took >= slowRequest && n < largeRequest {
		s.eager = max(s.eager, s.clock()+min(20*took, eagerFor))
	}
}

// spare tells a worker that has nothing to read whether others do so. Then it counts it out and puts it aside, to be woken through
// w.wake, which it closes if there are enough such workers.
func (s *Server) spare(w *worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading == 1 {
		return false
	}
	s.reading--
	if s.ended || len(s.idle) >= idleKept {
		close(w.wake)
	} else {
		s.idle = append(s.idle, w)
	}
	return true
}

// callIfAlone has another worker read if none does.
func (s *Server) callIfAlone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading == 0 && !s.ended {
		s.call()
	}
}

// startWatch has the watch look from now on. The caller holds mu.
func (s *Server) startWatch() {
	s.watching = true
	if s.watch == nil {
		v := &view{}
		s.watch = time.AfterFunc(watchEvery, func() { s.look(v) })
		return
	}
	s.watch.Reset(watchEvery)
}

// view is what the watch has seen the last time.
type view struct {
	at, used time.Duration // when, and how much processor time this process had used
	requests uint64        // taken until then
	quiet    int           // how often in a row there were no more
}

// look is the watch.
func (s *Server) look(before *view) {
	now := view{at: s.clock(), used: processorTime()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching = false
	if s.ended {
		return
	}
	if s.reading == 0 && now.at >= s.overdue {
		// While this process computes, more of the same is no help, so that one worker more is enough.
		if now.used-before.used < (now.at-before.at)/2 {
			s.eager = now.at + eagerFor
		}
		s.call()
	}
	if now.requests = s.requests; now.requests == before.requests {
		now.quiet = before.quiet + 1
	}
	*before = now
	if s.reading == 0 || now.quiet < idleWatches {
		s.startWatch()
	}
}

// processorTime returns the time that this process has used on all processors.
func processorTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0 // as if it computed nothing
	}
	return time.Duration(t.Nano())
}

// end is called by each worker that finds the connection closed.
func (s *Server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	if err != unix.ENODEV { // unmounted
		s.log.Warn("the connection to the kernel has ended", "error", err)
	}
	for _, w := range s.idle {
		close(w.wake)
	}
	s.idle = nil
	close(s.ending)
}

// interruptAll interrupts what is under way.
func (s *Server) interruptAll() {
	s.mu.Lock()
	var under []uint64
	for w := range s.all {
		if unique := w.unique.Load(); unique != 0 {
			under = append(under, unique)
		}
	}
	s.mu.Unlock()
	for _, unique := range under {
		s.opts.Handle([][]byte{interruptRequest(unique)}, [][]byte{make([]byte, argumentsSize)})
	}
}

// gone forgets a worker.
func (s *Server) gone(w *worker) {
	s.mu.Lock()
	delete(s.all, w)
	s.mu.Unlock()
	s.running.Done()
}
