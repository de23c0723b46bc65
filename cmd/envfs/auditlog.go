package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/audit"
)

// auditSettings say where the audit log of a command goes, if it has one.
type auditSettings struct {
	File     string
	Syslog   bool
	Required bool // what cannot be logged is refused
}

var errAuditInside = errors.New("the audit log would be inside the volume or the mount")

// addFlags adds the flags of auditSettings. They are the same in all commands.
func (s *auditSettings) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&s.File, "audit-log", "", "append to `FILE` who did what to which file, as lines of JSON")
	flags.BoolVar(&s.Syslog, "audit-syslog", false, "send the same to the local syslog")
	flags.BoolVar(&s.Required, "audit-required", false, "refuse what cannot be logged")
}

// check finds what cannot be meant, and makes the path independent of the
// working directory.
func (s *auditSettings) check(cmd *cobra.Command) (err error) {
	if s.Required && s.File == "" && !s.Syslog {
		return usagef(cmd, "--audit-required needs --audit-log or --audit-syslog")
	}
	if s.File != "" {
		s.File, err = filepath.Abs(s.File)
	}
	return err
}

// checkPlace refuses a file in one of the given directories, which must be
// resolved. In a mount, writing to the log would be an event of its own; in a
// ciphertext directory, it would show plaintext paths.
func (s *auditSettings) checkPlace(dirs ...string) error {
	if s.File == "" {
		return nil
	}
	at, err := filepath.EvalSymlinks(s.File)
	if err != nil { // it is not there yet
		dir, err := filepath.EvalSymlinks(filepath.Dir(s.File))
		if err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		at = filepath.Join(dir, filepath.Base(s.File))
	}
	for _, dir := range dirs {
		inside, err := isInside(at, dir)
		if err != nil {
			return err
		}
		if inside {
			return about(s.File, errAuditInside)
		}
	}
	return nil
}

// openAudit opens the audit log that the settings ask for, or none: then the log
// is nil, and takes records all the same. The caller closes it.
func openAudit(s auditSettings) (*audit.Log, error) {
	if s.File == "" && !s.Syslog {
		return nil, nil
	}
	return audit.Open(audit.Options{File: s.File, Syslog: s.Syslog})
}

// reopenOnHangup makes SIGHUP open the log anew, until stop is called.
func reopenOnHangup(l *audit.Log, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangups {
			if err := l.Reopen(); err != nil {
				log.Error("the audit log goes on where it was", "error", err)
			} else {
				log.Info("audit log opened again")
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
		<-done
	}
}

// endingSignals are those that ask a mount in the foreground to end: a hangup is
// one of them, unless it means that the audit log was renamed.
func (s auditSettings) endingSignals() []os.Signal {
	signals := []os.Signal{syscall.SIGTERM, os.Interrupt}
	if s.File == "" {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// auditor hands the events of a mount to the audit log.
type auditor struct{ log *audit.Log }

var _ fs.Auditor = auditor{}

// Record implements fs.Auditor.
func (a auditor) Record(e fs.AuditEvent) error {
	return a.log.Record(audit.Record{
		Time: e.Time, Op: e.Op, Write: e.Write,
		UID: e.UID, GID: e.GID, PID: e.PID, Command: e.Command,
		Path: e.Path, NewPath: e.NewPath, FileID: e.FileID, KEKVersion: e.KEK, Outcome: e.Outcome,
	})
}

// Ready says why nothing can be recorded, or nil. A mount that must not do what
// is not logged asks before it does it.
func (a auditor) Ready() error { return a.log.Ready() }
