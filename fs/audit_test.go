package fs

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// auditLog keeps events, or refuses to.
type auditLog struct {
	mu     sync.Mutex
	events []AuditEvent
	err    error
}

func (l *auditLog) Record(e AuditEvent) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.events = append(l.events, e)
	}
	return l.err
}

func (l *auditLog) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *auditLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// take returns the events since the last call, in one line each.
func (l *auditLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, e := range l.events {
		mode := ""
		if e.Op == "open" {
			mode = " r"
			if e.Write {
				mode = " w"
			}
		}
		outcome := "ok"
		if e.Outcome != 0 {
			outcome = unix.ErrnoName(e.Outcome)
		}
		lines = append(lines, strings.TrimSpace(e.Op+mode+" "+e.Path+" "+e.NewPath)+" "+outcome)
	}
	l.events = nil
	return lines
}

func TestAuditRecordsWhatHappens(t *testing.T) {
	log := &auditLog{}
	r := newRig(t, Options{Audit: log})
	if err := os.Mkdir(r.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	step := func(want string, do func() error) {
		t.Helper()
		log.take()
		if err := do(); err != nil {
			t.Error(err)
		}
		if got := strings.Join(log.take(), "; "); got != want {
			t.Errorf("recorded %q, want %q", got, want)
		}
	}
	step("create /dir/f ok", func() error { return os.WriteFile(r.path("dir/f"), []byte("x"), 0o644) })
	step("open r /dir/f ok", func() error { _, err := os.ReadFile(r.path("dir/f")); return err })
	step("open w /dir/f ok", func() error { return os.WriteFile(r.path("dir/f"), []byte("y"), 0o644) })
	step("link /dir/f /dir/g ok", func() error { return os.Link(r.path("dir/f"), r.path("dir/g")) })
	step("rename /dir/f /h ok", func() error { return os.Rename(r.path("dir/f"), r.path("h")) })
	step("", func() error { _, err := os.Stat(r.path("h")); return err })

	r.remount()
	r.kr.Deny()
	step("open r /h EACCES", func() error {
		if _, err := os.ReadFile(r.path("h")); !errors.Is(err, unix.EACCES) {
			t.Errorf("open without the right to the key: %v", err)
		}
		return nil
	})
	r.kr.Restore()

	log.take()
	if err := os.Remove(r.path("h")); err != nil {
		t.Fatal(err)
	}
	log.mu.Lock()
	e := log.events[0]
	log.mu.Unlock()
	if e.Op != "unlink" || e.FileID == "" || e.KEK != 1 || e.PID == 0 || e.Command == "" || e.Time.IsZero() {
		t.Errorf("event %+v", e)
	}
}

// TestAuditRequired: what cannot be recorded does not happen.
func TestAuditRequired(t *testing.T) {
	log := &auditLog{}
	r := newRig(t, Options{Audit: log, AuditRequired: true})
	if err := os.WriteFile(r.path("f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	log.fail(errors.New("disk full"))
	for what, err := range map[string]error{
		"create": os.WriteFile(r.path("g"), nil, 0o644),
		"open":   func() error { _, err := os.ReadFile(r.path("f")); return err }(),
		"rename": os.Rename(r.path("f"), r.path("h")),
		"unlink": os.Remove(r.path("f")),
		"link":   os.Link(r.path("f"), r.path("i")),
	} {
		if !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	log.fail(nil)
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "f" {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	if got, err := os.ReadFile(r.path("f")); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}
