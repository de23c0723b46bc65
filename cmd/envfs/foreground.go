package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/envfs/envfs/cmd/envfs/internal/logging"
	"github.com/envfs/envfs/internal/secret"
)

// serveHere mounts in this process and returns when the mount is gone. A
// service manager that waits for it is told when the mount is usable, and when
// it ends.
func (m *mountCommand) serveHere(ctx context.Context, passphrase []byte) error {
	defer secret.Wipe(passphrase)
	if m.request.Log.To == "" {
		m.request.Log.To = logging.Stderr
	}
	log, err := logging.Open(m.request.Log.options(m.app))
	if err != nil {
		return err
	}
	s := session{
		request: m.request,
		log:     log,
		ready:   func() { m.notify(log, daemon.SdNotifyReady); m.tell(os.Getpid(), log.Where) },
		ending:  func() { m.notify(log, daemon.SdNotifyStopping) },
		signals: make(chan os.Signal, 4),
	}
	signal.Notify(s.signals, m.request.Audit.endingSignals()...)
	err = s.serve(ctx, passphrase)
	if closeErr := log.Close(); err == nil {
		err = closeErr
	}
	return err
}

// notify tells the service manager, if there is one, what it waits for.
func (m *mountCommand) notify(log *logging.Log, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the service manager cannot be told", "state", state, "err", err)
	}
}

func (l logSettings) options(a *app) logging.Options {
	return logging.Options{Format: l.Format, Level: l.Level, To: l.To, File: l.File, Stderr: a.stderr}
}
