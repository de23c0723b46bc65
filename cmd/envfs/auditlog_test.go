package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	mountfs "github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

func TestAuditFlags(t *testing.T) {
	t.Chdir("/")
	for args, want := range map[string]auditSettings{
		"":                                       {},
		"--audit-log var/log --audit-required":   {File: "/var/log", Required: true},
		"-o audit-log=/x,audit-required":         {File: "/x", Required: true},
		"-o audit-syslog":                        {Syslog: true},
		"--audit-syslog -o audit-required":       {Syslog: true, Required: true},
		"--audit-syslog --audit-required -o ro ": {Syslog: true, Required: true},
	} {
		if got, err := parseMount(strings.Fields(args)...); err != nil || got.Audit != want {
			t.Errorf("%q gives %+v, %v", args, got.Audit, err)
		}
	}
	for _, args := range []string{"--audit-required", "-o audit-required"} {
		if _, err := parseMount(strings.Fields(args)...); exitCode(err) != exitUsage {
			t.Errorf("%q gives %v", args, err)
		}
	}
}

func TestHangupEndsOrReopens(t *testing.T) {
	hangup := func(s auditSettings) bool {
		for _, sig := range s.endingSignals() {
			if sig == syscall.SIGHUP {
				return true
			}
		}
		return false
	}
	if !hangup(auditSettings{}) || !hangup(auditSettings{Syslog: true}) || hangup(auditSettings{File: "/x"}) {
		t.Error("a hangup means the wrong thing")
	}
}

func TestOutcome(t *testing.T) {
	for _, test := range []struct {
		err  error
		want unix.Errno
	}{
		{nil, 0},
		{&keyring.Error{Class: keyring.ErrDenied, Err: unix.EPERM}, unix.EACCES},
		{fmt.Errorf("x: %w", keyring.ErrRevoked), unix.EKEYREVOKED},
		{keyring.ErrUnreachable, unix.ENOKEY},
		{keyring.ErrConfig, unix.ENOKEY},
		{&fs.PathError{Op: "open", Path: "/x", Err: unix.EBUSY}, unix.EBUSY},
		{keyring.ErrCorrupt, unix.EIO},
		{volume.ErrDamagedConfig, unix.EIO},
		{errors.New("x"), unix.EIO},
	} {
		if got := outcomeOf(test.err); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

// TestAuditorLosesNothing: each field of an event arrives in its own.
func TestAuditorLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	l, err := openAudit(auditSettings{File: file})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	err = auditor{l}.Record(mountfs.AuditEvent{
		Time: at, Op: "link", Write: true, UID: 1, GID: 2, PID: 3, Command: "ln", Path: "/a", NewPath: "/b",
		FileID: "ff", KEK: 4, Outcome: unix.EACCES,
	})
	own := ownRecord("rewrap")
	own.Path = "/c"
	if err := errors.Join(err, l.Record(own), auditor{l}.Ready(), l.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(text), "\n")
	const want = `{"time":"2026-03-01T12:00:00.000000000Z","op":"link","write":true,"uid":1,"gid":2,"pid":3,"command":"ln",` +
		`"path":"/a","new_path":"/b","file_id":"ff","kek_version":4,"outcome":"EACCES"}`
	if first != want {
		t.Errorf("got\n%s, want\n%s", first, want)
	}
	var line struct {
		Op, Path, Command string
		UID, PID          int
	}
	if err := json.Unmarshal([]byte(second), &line); err != nil {
		t.Fatal(err)
	}
	if line.Op != "rewrap" || line.Path != "/c" || line.PID != os.Getpid() || line.UID != os.Getuid() || line.Command == "" {
		t.Errorf("%+v", line)
	}
}
