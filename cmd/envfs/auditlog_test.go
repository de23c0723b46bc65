package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	mountfs "github.com/envfs/envfs/fs"
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
	if err := errors.Join(err, auditor{l}.Ready(), l.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"time":"2026-03-01T12:00:00.000000000Z","op":"link","write":true,"uid":1,"gid":2,"pid":3,"command":"ln",` +
		`"path":"/a","new_path":"/b","file_id":"ff","kek_version":4,"outcome":"EACCES"}` + "\n"
	if string(text) != want {
		t.Errorf("got\n%s, want\n%s", text, want)
	}
}
