// Package lifecycle keeps a mount alive until it has been taken away: by
// somebody else, by a signal, or because it was idle.
//
// It sits between the mount command and the file system server, and holds the
// one loop in which a mount's life is decided:
//
//   - The first SIGTERM or SIGINT unmounts. If the mount is busy, the holders
//     are logged, everything goes on working, and the unmount is tried again
//     every second until it succeeds.
//   - A second signal unmounts lazily: the mount disappears from the tree, but
//     what is open stays served until it is closed. No data is ever dropped.
//   - An idle mount is unmounted in the ordinary way, which the kernel refuses
//     while a file is open or mapped, or a process has its working directory,
//     root directory or program there.
package lifecycle

import (
	"log/slog"
	"os"
	"time"
)

// Server is a mounted file system that is being served.
type Server interface {
	Wait() error             // returns once the mount is gone and everything is written
	OpenHandles() int        // open files and directories
	LastActivity() time.Time // when the last request came
}

// Options say when and how a mount ends. Every field but Idle is required.
type Options struct {
	Idle    time.Duration         // unmount after so long without use; 0 = never
	Unmount func(lazy bool) error // takes the mount away; fails if it is busy and lazy is false
	LogBusy func()                // tells who keeps the mount busy
	Signals <-chan os.Signal      // each one asks for the end
	Ending  func()                // called once, when the end has been asked for
	Log     *slog.Logger
}

// retryEvery is the time between attempts to unmount a busy mount after a
// signal.
const retryEvery = time.Second

// recheckEvery bounds how late the end of a use is noticed that sends no
// request when it ends, such as a working directory.
const recheckEvery = time.Minute

// Run returns when srv is no longer mounted and nothing on it is open, with the
// error of its last writes.
func Run(srv Server, o Options) error {
	gone := make(chan error, 1)
	go func() { gone <- srv.Wait() }()
	l := loop{Options: o, srv: srv, started: time.Now()}
	return l.run(gone)
}

type loop struct {
	Options
	srv     Server
	started time.Time // before the first request, the mount counts as used then
	signals int       // how many came
	over    bool      // this loop has unmounted: what is at the mountpoint now is not ours
}

func (l *loop) run(gone <-chan error) error {
	retry := time.NewTimer(0) // set again by the first signal, so that an unused mount wakes nobody
	defer retry.Stop()
	idle := time.NewTimer(l.untilIdle())
	defer idle.Stop()
	for {
		select {
		case err := <-gone:
			return err
		case sig := <-l.Signals:
			l.signal(sig)
			retry.Reset(retryEvery)
		case <-retry.C:
			if l.signals > 0 && !l.over {
				_ = l.unmount(false) // still busy: it is tried again
				retry.Reset(retryEvery)
			}
		case <-idle.C:
			if l.Idle > 0 && l.signals == 0 && !l.over {
				idle.Reset(l.endIfIdle())
			}
		}
	}
}

func (l *loop) unmount(lazy bool) error {
	if l.over {
		return nil
	}
	err := l.Unmount(lazy)
	l.over = err == nil
	return err
}

func (l *loop) signal(sig os.Signal) {
	l.signals++
	switch {
	case l.signals == 1 && !l.over:
		l.Ending()
		l.Log.Info("unmounting", "signal", sig.String())
		if err := l.unmount(false); err != nil {
			l.Log.Warn("cannot unmount yet: serving on until it is free", "err", err)
			l.LogBusy()
		}
	case l.over:
		l.Log.Warn("unmounted, but still serving what is open", "open", l.srv.OpenHandles())
	default:
		l.Log.Warn("unmounting lazily: serving what is open until it is closed",
			"signal", sig.String(), "open", l.srv.OpenHandles())
		if err := l.unmount(true); err != nil {
			l.Log.Error("unmounting lazily", "err", err)
		}
	}
}

// endIfIdle unmounts if nothing is open and nothing was asked for long enough,
// and returns when to look again.
func (l *loop) endIfIdle() time.Duration {
	recheck := min(l.Idle, recheckEvery)
	if left := l.untilIdle(); left > 0 {
		return left
	}
	if l.srv.OpenHandles() > 0 {
		return recheck
	}
	if err := l.unmount(false); err != nil {
		l.Log.Debug("idle, but in use", "err", err)
		return recheck
	}
	l.Ending()
	l.Log.Info("unmounted: idle", "after", l.Idle.String())
	return recheck
}

// untilIdle is how long the mount has to stay unused, from now on, to count
// as idle.
func (l *loop) untilIdle() time.Duration {
	used := l.srv.LastActivity()
	if used.Before(l.started) {
		used = l.started
	}
	return l.Idle - time.Since(used)
}
