package fusedev

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a goroutine that reads requests and carries them out, one at a time.
type worker struct {
	s      *Server
	wake   chan struct{} // one for each call while it is put aside; closed at the end
	unique atomic.Uint64 // of the request under way; 0: none

	request, answer []byte
	in, out         [1][]byte // for Handle, made once

	busySince time.Duration // since when it has found a request at once, or has called for help
}

// argumentsSize is more than the header and arguments of any request or answer take, in bytes, names included.
const argumentsSize = 32 << 10

// afterFailure keeps a worker that cannot read from doing nothing else than failing.
const afterFailure = 50 * time.Millisecond

// catchUp is how long a worker finds a request at once, again and again, until it calls for another one.
const catchUp = 100 * time.Microsecond

func newWorker(s *Server) *worker {
	return &worker{s: s, wake: make(chan struct{}, 1)}
}

// begin gets the memory that a worker needs, which takes too long for where it is called.
func (w *worker) begin() {
	w.request = make([]byte, w.s.opts.MaxRequest+argumentsSize)
	w.answer = make([]byte, argumentsSize)
}

// fit makes the answer large enough for what a request asks for. The kernel asks for no more than was agreed upon.
func (w *worker) fit(request []byte) {
	if size := min(wanted(request), w.s.opts.MaxRequest) + argumentsSize; size > len(w.answer) {
		w.answer = make([]byte, size)
	}
}

func (w *worker) run() {
	defer w.s.gone(w)
	w.begin()
	for {
		n, err := w.read()
		switch {
		case err == nil && n >= inHeaderSize:
			w.serve(w.request[:n])
		case err == errSpare:
			if !w.putAside() {
				return
			}
		case err == unix.ENODEV || err == unix.ECONNABORTED: // unmounted, aborted
			w.s.end(err)
			return
		default: // if it was a request that could not be handed over, the kernel has failed it
			w.s.log.Error("cannot read a request from the kernel", "bytes", n, "error", err)
			time.Sleep(afterFailure)
		}
	}
}

// serve carries out one request while others may read.
func (w *worker) serve(request []byte) {
	size := moved(request)
	began := w.s.take(size, w.behind())
	w.carryOut(request)
	w.s.resume(w.s.clock()-began, size)
}

// behind tells whether requests have come faster than this worker carries them out, for long enough that another one is worth it.
func (w *worker) behind() bool {
	now := w.s.clock()
	if now-w.busySince < catchUp {
		return false
	}
	w.busySince = now
	return true
}

// read waits for a request and returns its length in bytes. It fails with errSpare if others wait already.
func (w *worker) read() (int, error) {
	n, err := read(w.s.fd, w.request)
	if err == unix.EAGAIN {
		n, err = w.wait()
		w.busySince = w.s.clock()
	}
	return n, err
}

// putAside waits until this worker is called. It returns false if it is not needed any more.
func (w *worker) putAside() bool {
	_, open := <-w.wake
	w.busySince = w.s.clock()
	return open
}

// carryOut handles one request and answers it.
func (w *worker) carryOut(request []byte) {
	unique, opcode := uniqueOf(request), opcodeOf(request)
	w.unique.Store(unique)
	w.fit(request)
	w.in[0], w.out[0] = request, w.answer
	n := w.s.opts.Handle(w.in[:], w.out[:])
	w.unique.Store(0)
	answer := w.answer[:n]
	if n == 0 {
		if unanswered(opcode) {
			return
		}
		answer = errorAnswer(w.answer, unique, int32(unix.EIO))
	}
	w.reply(opcode, unique, answer)
}

// reply answers a request. One whose caller was killed meanwhile is not known any more; any other that the kernel does not take is
// answered with EIO, since its caller would wait for ever.
func (w *worker) reply(opcode uint32, unique uint64, answer []byte) {
	err := write(w.s.fd, answer, opcode)
	if err == nil || err == unix.ENOENT || err == unix.ENODEV {
		return
	}
	w.s.log.Error("the kernel refuses an answer", "opcode", opcode, "bytes", len(answer), "error", err)
	if err := write(w.s.fd, errorAnswer(make([]byte, outHeaderSize), unique, int32(unix.EIO)), opcode); err != nil {
		w.s.log.Error("the kernel refuses an error as well", "opcode", opcode, "error", err)
	}
}
