package fusedev

import (
	"errors"

	"golang.org/x/sys/unix"
)

// errSpare says that others wait for requests already.
var errSpare = errors.New("others wait")

// wait waits for a request and returns its length in bytes. It fails with errSpare if another worker waits already; then this
// one has been put aside, or has to end.
func (w *worker) wait() (int, error) {
	s := w.s
	if s.spare(w) {
		return 0, errSpare
	}
	start := s.clock()
	limit, last := s.patience.allowed(start), start
	for {
		n, err := read(s.fd, w.request)
		if err != unix.EAGAIN {
			s.patience.waited(s.clock() - start)
			return n, err
		}
		now := s.clock()
		if now-last > outOfTurn {
			s.patience.disturbed(now, now-last)
			limit = 0
		}
		last = now
		// While a request is under way, the processor is for that.
		if now-start < limit && s.underWay.Load() == 0 {
			giveWay()
			continue
		}
		if err := sleep(s.fd); err != nil {
			return 0, err
		}
		last = s.clock()
	}
}
