package main

import (
	"errors"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/audit"
	"github.com/envfs/envfs/volume"
)

// keyLog is the audit log of a command that changes the keys of a volume.
type keyLog struct {
	op       string
	required bool
	log      *audit.Log // nil: none
	warnings *slog.Logger
	warned   sync.Once
	stop     func()
	// plain returns the plaintext path of a ciphertext path, if it can be told. Set before there is anything to record.
	plain func(stored string) (string, bool)
}

var _ volume.KeyAuditor = (*keyLog)(nil)

// openKeyLog opens the audit log of a command that changes keys of the volume dir. done closes it.
func openKeyLog(a *app, s auditSettings, op, dir string) (*keyLog, error) {
	dirs := []string{dir}
	for _, m := range (place{volume: dir}).mounts() {
		dirs = append(dirs, m.Mountpoint)
	}
	if err := s.checkPlace(dirs...); err != nil {
		return nil, err
	}
	log, err := openAudit(s)
	if err != nil {
		return nil, err
	}
	l := &keyLog{op: op, required: s.Required, log: log, warnings: a.log(), stop: func() {}}
	l.plain = func(string) (string, bool) { return "", false }
	if s.File != "" {
		l.stop = reopenOnHangup(log, l.warnings)
	}
	return l, nil
}

// done records that the command as a whole has failed, if so, and closes the log.
func (l *keyLog) done(err error) error {
	if err != nil {
		r := l.own()
		r.Path, r.Outcome = "/", fs.Errno(err)
		_ = l.write(r) // the command fails anyway
	}
	l.stop()
	return errors.Join(err, l.log.Close())
}

// own is a record of what this process does.
func (l *keyLog) own() audit.Record {
	return audit.Record{
		Op: l.op, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: uint32(os.Getpid()), Command: filepath.Base(os.Args[0]),
	}
}

// Ready implements volume.KeyAuditor.
func (l *keyLog) Ready() error {
	if !l.required {
		return nil
	}
	return l.log.Ready()
}

// Record implements volume.KeyAuditor.
func (l *keyLog) Record(c volume.KeyChange) error {
	r := l.own()
	r.FileID, r.NewFileID, r.KEKVersion, r.Outcome = hexOf(c.ID), hexOf(c.NewID), c.KEK, fs.Errno(c.Err)
	if plain, ok := l.plain(c.Path); ok {
		r.Path = path.Join("/", plain)
	} else {
		r.StoredPath = path.Join("/", c.Path)
	}
	return l.write(r)
}

// write writes a record. That it cannot is an error if it must, and else a warning, once.
func (l *keyLog) write(r audit.Record) error {
	err := l.log.Record(r)
	if err == nil || l.required {
		return err
	}
	l.warned.Do(func() { l.warnings.Warn("cannot write the audit log", "error", err) })
	return nil
}

func hexOf(id crypto.ID) string {
	if id == (crypto.ID{}) {
		return ""
	}
	return id.String()
}
