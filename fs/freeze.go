package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/envfs/envfs/volume"
)

var (
	// ErrFrozen is the error of freezing what is frozen.
	ErrFrozen = errors.New("frozen already")
	// ErrThawed is the error of thawing what is not frozen, or not by this Freeze any more.
	ErrThawed = errors.New("not frozen")
	// ErrEnding is the error of freezing a mount that is about to end.
	ErrEnding = errors.New("about to be unmounted")
)

// Freeze is a time in which nothing changes in the ciphertext directory, so that a snapshot of it is complete: every file
// sealed as it was, and durable.
type Freeze struct {
	ID       uint64        // tells apart those of a mount
	Since    time.Time     // when the last change had ended
	Limit    time.Duration // after which it ends by itself; 0: never
	Unsealed int           // files that could not be sealed, which the log names

	s     *Server
	thaw  func() // of the volume
	timer *time.Timer
	done  chan struct{}
}

// freezer knows whether a mount is frozen.
//
// LOCK ORDER: begin → gate.mu, exclusively → mu, and the locks below the gate. Requests take none of these but the gate.
type freezer struct {
	begin sync.Mutex // held while a Freeze begins, so that there is one at a time

	mu      sync.Mutex
	current *Freeze // nil: not frozen; guarded by mu
	last    uint64  // ID; guarded by mu
	ending  bool    // nothing is frozen any more; guarded by mu
}

// Freeze writes back what the kernel holds, waits for the changes under way, seals every file, makes everything durable, and
// holds all further changes until the result is thawed or limit has passed, unless that is 0. What an application has written
// before the call is in the ciphertext then. Reading goes on. If ctx ends before it is done, nothing is held.
//
// What an application writes while the kernel is asked for its pages may be in or not: to applications the state is like one
// that a power cut leaves, in which what was synced before something else was written is there as well.
func (s *Server) Freeze(ctx context.Context, limit time.Duration) (*Freeze, error) {
	if !s.freezer.begin.TryLock() {
		return nil, ErrFrozen
	}
	defer s.freezer.begin.Unlock()
	if s.Frozen() != nil {
		return nil, ErrFrozen
	}
	if err := s.writeBack(ctx); err != nil {
		return nil, fmt.Errorf("writing back: %w", err)
	}
	s.gate.mu.Lock()
	f, err := s.freeze(ctx, limit)
	if err != nil {
		s.gate.mu.Unlock()
		return nil, err
	}
	s.log.Info("frozen", "limit", limit.String(), "unsealed", f.Unsealed)
	return f, nil
}

// freeze is the part of Freeze behind the closed gate.
func (s *Server) freeze(ctx context.Context, limit time.Duration) (*Freeze, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	thaw, unsealed, err := s.vol.Freeze(s.openFiles)
	if err != nil {
		return nil, err
	}
	s.freezer.mu.Lock()
	defer s.freezer.mu.Unlock()
	if s.freezer.ending {
		thaw()
		return nil, ErrEnding
	}
	f := &Freeze{Since: time.Now(), Limit: limit, Unsealed: unsealed, s: s, thaw: thaw, done: make(chan struct{})}
	s.freezer.last++
	f.ID = s.freezer.last
	s.freezer.current = f
	s.openNow.Add(1) // so that it does not count as idle
	if limit > 0 {
		f.timer = time.AfterFunc(limit, func() {
			if f.Thaw() == nil {
				s.log.Warn("thawed by itself, because nobody has done it in time", "after", limit.String())
			}
		})
	}
	return f, nil
}

// openFiles returns the files that are open, each with one more user.
func (s *Server) openFiles() (files []*volume.File) {
	for _, n := range s.table.all() {
		if f := n.file.Load(); f != nil && f.Retain() {
			files = append(files, f)
		}
	}
	return files
}

// Frozen returns the Freeze that holds changes, or nil.
func (s *Server) Frozen() *Freeze {
	s.freezer.mu.Lock()
	defer s.freezer.mu.Unlock()
	return s.freezer.current
}

// EndFreezing thaws what is frozen, and lets nothing be frozen from now on: an unmount has to write what waits.
func (s *Server) EndFreezing() {
	s.freezer.mu.Lock()
	s.freezer.ending = true
	s.freezer.mu.Unlock()
	if f := s.Frozen(); f != nil && f.Thaw() == nil {
		s.log.Warn("thawed, because the mount is to end")
	}
}

// Held returns the number of requests that wait for a thaw.
func (s *Server) Held() int { return int(s.gate.held.Load()) }

// Thaw ends it: changes go on. ErrThawed says that it had ended before.
func (f *Freeze) Thaw() error {
	z := &f.s.freezer
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.current != f {
		return ErrThawed
	}
	z.current = nil
	if f.timer != nil {
		f.timer.Stop()
	}
	f.s.openNow.Add(-1)
	f.thaw()
	f.s.gate.mu.Unlock()
	close(f.done)
	f.s.log.Info("thawed", "after", time.Since(f.Since).Round(time.Millisecond).String())
	return nil
}

// Done is closed when it has ended.
func (f *Freeze) Done() <-chan struct{} { return f.done }
