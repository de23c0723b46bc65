package volume

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSealDelay is how long a written and closed file waits to be sealed together with others.
const DefaultSealDelay = 5 * time.Second

const (
	// sealSoon is the number of waiting files, each with an open descriptor, at which they are sealed without delay.
	sealSoon = 512
	// sealMost bounds the files with a descriptor open only to be sealed; it is less where descriptors are few.
	sealMost = 16_384
	// sealEach is the number of files up to which each is synced by itself. Above it one sync of the whole file system is
	// cheaper, though it takes with it what other programs have written.
	sealEach = 16
)

// sealer seals files some time after their last user has closed them. A seal vouches for data, so data must be durable
// first; one sync for many files, a little later, is what makes that affordable. Nobody waits for it but unmount, and a
// file opened again meanwhile simply goes on being unsealed.
//
// LOCK ORDER: round → File.life → mu.
type sealer struct {
	v     *Volume
	delay time.Duration
	most  int           // files that may be held
	wake  chan struct{} // a token: look at the queue now
	quit  chan struct{}
	done  sync.WaitGroup

	round sync.Mutex // held while a round of sealing is under way, and while the volume is frozen

	mu      sync.Mutex
	held    int           // files that wait, and those of the round under way; guarded by mu
	eased   chan struct{} // closed at the end of a round; guarded by mu
	waiting []*File       // guarded by mu
	timer   *time.Timer   // runs while waiting is not empty; guarded by mu
}

func newSealer(v *Volume, delay time.Duration) *sealer {
	if delay <= 0 {
		delay = DefaultSealDelay
	}
	s := &sealer{v: v, delay: delay, most: mostHeld(), wake: make(chan struct{}, 1), quit: make(chan struct{}), eased: make(chan struct{})}
	s.done.Go(s.run)
	return s
}

// mostHeld leaves most descriptors to others.
func mostHeld() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return sealSoon
	}
	return int(min(max(limit.Cur/4, 2), sealMost))
}

// add queues f, whose life lock the caller holds.
func (s *sealer) add(f *File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, f)
	s.held++
	switch {
	case len(s.waiting) >= min(sealSoon, s.most/2):
		s.poke()
	case len(s.waiting) == 1:
		s.timer = time.AfterFunc(s.delay, s.poke)
	}
}

// room waits while too many files have a descriptor open here only to be sealed: a disk that syncs slower than files are
// made must slow their makers down, or they would run out of descriptors.
func (s *sealer) room(ctx context.Context) error {
	for {
		s.mu.Lock()
		full, eased := s.held >= s.most, s.eased
		s.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-eased:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ease notes the end of a round of so many files.
func (s *sealer) ease(files int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= files
	close(s.eased)
	s.eased = make(chan struct{})
}

func (s *sealer) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sealer) run() {
	for {
		select {
		case <-s.quit:
			return
		case <-s.wake:
			if err := s.flush(); err != nil {
				s.v.log.Error("cannot make written files durable, so they stay unsealed", "error", err)
			}
		}
	}
}

func (s *sealer) take() []*File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	files := s.waiting
	s.waiting = nil
	return files
}

// flush seals what is waiting.
func (s *sealer) flush() error {
	s.round.Lock()
	defer s.round.Unlock()
	return s.flushHeld()
}

// flushHeld is flush for a caller that holds round.
func (s *sealer) flushHeld() error {
	var idle []*File
	files := s.take()
	defer s.ease(len(files))
	for _, f := range files {
		if f.idle() {
			idle = append(idle, f)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	if len(idle) > sealEach {
		return s.sealTogether(idle)
	}
	var errs []error
	for _, f := range idle {
		errs = append(errs, s.sealOne(f))
	}
	return errors.Join(errs...)
}

func (s *sealer) sealTogether(files []*File) error {
	if err := s.v.store.SyncFS(int(s.v.root.Fd())); err != nil {
		for _, f := range files {
			f.unsynced()
		}
		return err
	}
	for _, f := range files {
		f.sealQueued()
	}
	return nil
}

func (s *sealer) sealOne(f *File) error {
	if !f.Retain() {
		return nil // deleted meanwhile
	}
	err := f.v.store.Sync(f.FD(), true)
	if err != nil {
		f.extents.restoreUnsynced(unsynced{dirty: true, unprotected: true})
	}
	f.drop(err)
	return err
}

// drop ends the sealer's own use of f after its sync.
func (f *File) drop(syncErr error) {
	f.life.Lock()
	f.refs--
	f.life.Unlock()
	if syncErr != nil {
		f.unsynced()
		return
	}
	f.sealQueued()
}

// close seals everything that is waiting and ends the sealer.
func (s *sealer) close() error {
	close(s.quit)
	s.done.Wait()
	err := s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	return err
}
