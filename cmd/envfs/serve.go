package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/envfs/envfs/cmd/envfs/internal/lifecycle"
	"github.com/envfs/envfs/cmd/envfs/internal/logging"
	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

// session is a mount from its start to its end, in the process that serves it.
type session struct {
	request mountRequest
	log     *logging.Log
	ready   func()         // called once, when the mount is usable
	ending  func()         // called once, when its end has been asked for
	signals chan os.Signal // each one asks for the end
}

// serve mounts, says so, and returns when the mount is gone and everything on
// it is closed. It wipes the passphrase. Errors before ready are those of the
// start; one after it means that something may not have reached the disk.
func (s *session) serve(ctx context.Context, passphrase []byte) (err error) {
	defer secret.Wipe(passphrase)
	// The process serves files of all users with the modes they ask for, and
	// a reader of its messages that goes away must not end it.
	syscall.Umask(0)
	signal.Ignore(syscall.SIGPIPE)

	secret.ProtectProcess(s.log.Logger)
	arena := secret.NewArena(s.log.Logger)
	cfg, err := volume.ReadConfig(s.request.Dir)
	if err == nil {
		err = s.request.Keys.checkPin(cfg) // what was checked before may have been exchanged
	}
	if err != nil {
		return aboutNamed(s.request.Dir, err)
	}
	opener := keyringOpener{keySettings: s.request.Keys, arena: arena, log: s.log.Logger}
	kr, err := opener.open(ctx, cfg, passphrase)
	if err != nil {
		return about(s.request.Dir, err)
	}
	defer kr.Close()
	observed, meter := keyring.Observe(kr)
	v, err := volume.Open(ctx, s.request.Dir, cfg, observed, s.request.openOptions(cfg, arena, s.log.Logger))
	if err != nil {
		return aboutNamed(s.request.Dir, err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	debug.FreeOSMemory() // Argon2 has used much more than a mount ever will
	return s.serveVolume(&monitor{
		request: &s.request, cfg: cfg, keyring: kr, meter: meter, volume: v, log: s.log.Logger, started: time.Now(),
	})
}

// serveVolume opens what a mount reports to, mounts, and serves.
func (s *session) serveVolume(mon *monitor) (err error) {
	if mon.audit, err = openAudit(s.request.Audit); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mon.audit.Close()) }()
	if s.request.Audit.File != "" {
		defer reopenOnHangup(mon.audit, s.log.Logger)()
	}
	if mon.metrics, err = listenMetrics(s.request.Metrics); err != nil {
		return err
	}
	defer mon.metrics.close()
	options := s.request.fsOptions(s.log.Logger)
	if mon.audit != nil {
		options.Audit, options.AuditRequired = auditor{mon.audit}, s.request.Audit.Required
	}
	mon.server, err = fs.Mount(mon.volume, s.request.Mountpoint, options)
	if err != nil {
		return fmt.Errorf("mounting at %s: %w", s.request.Mountpoint, err)
	}
	return s.serveMount(mon)
}

func (s *session) serveMount(mon *monitor) error {
	srv := mon.server
	m, err := ownMount(s.request.Mountpoint)
	if err != nil {
		if unmounting := srv.Unmount(); unmounting != nil {
			return errors.Join(err, unmounting)
		}
		return errors.Join(err, srv.Wait())
	}
	defer mon.start(m)()
	s.log.Info("mounted", "dir", s.request.Dir, "mountpoint", s.request.Mountpoint,
		"read_only", s.request.Options.ReadOnly, "pid", os.Getpid())
	s.ready()
	err = lifecycle.Run(srv, lifecycle.Options{
		Idle:    s.request.Idle,
		Unmount: func(lazy bool) error { return unmountOwn(m, lazy) },
		LogBusy: func() { logHolders(s.log.Logger, m) },
		Signals: s.signals,
		Ending:  func() { srv.EndFreezing(); s.ending() },
		Log:     s.log.Logger,
	})
	s.log.Info("unmounted", "mountpoint", s.request.Mountpoint)
	return err
}

func (r *mountRequest) fsOptions(log *slog.Logger) fs.Options {
	o := r.Options
	return fs.Options{
		AllowOther: o.AllowOther, ReadOnly: o.ReadOnly, NoAtime: o.NoAtime, NoDirAtime: o.NoDirAtime,
		Dev: o.Dev, Suid: o.Suid, NoExec: o.NoExec, Debug: o.Debug, Extra: o.Kernel,
		WriteThrough: r.Cache == cacheWritethrough,
		DisableXattr: r.Xattr == xattrOff,
		FastOpen:     o.FastOpen,
		KeyWait:      r.Service.Wait,
		FsName:       r.Dir,
		Log:          log,

		Restless: runtime.GOMAXPROCS(0) > 1,
	}
}

// ownMount finds the mount that this process has just made.
func ownMount(point string) (mounts.Mount, error) {
	table, err := mounts.Read()
	if err != nil {
		return mounts.Mount{}, err
	}
	m, ok := table.At(point)
	if !ok || !m.IsEnvfs() {
		return m, about(point, errNotMounted)
	}
	return m, nil
}

// unmountOwn takes away the mount that this process made, and never another
// one that stands at the same place by now.
func unmountOwn(own mounts.Mount, lazy bool) error {
	m, err := ownMount(own.Point)
	if err != nil {
		return err
	}
	if m.Device != own.Device {
		return fmt.Errorf("%s: covered by another mount", own.Point)
	}
	return mounts.Unmount(own.Point, lazy)
}

// logHolders logs who keeps a mount busy.
func logHolders(log *slog.Logger, m mounts.Mount) {
	held, hidden, err := mounts.Holders(m.Device)
	if err != nil {
		log.Warn("cannot find out who holds the mount", "err", err)
	}
	for _, h := range held {
		log.Warn("mount in use", "pid", h.PID, "command", h.Command, "use", h.Use, "path", h.Path)
	}
	if len(held) == 0 && hidden > 0 {
		log.Warn("mount in use by processes of other users")
	}
}
