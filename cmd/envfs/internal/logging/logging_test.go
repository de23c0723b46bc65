package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFormatAndLevel(t *testing.T) {
	var out bytes.Buffer
	l, err := Open(Options{Format: JSON, Level: slog.LevelWarn, To: Stderr, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	l.Info("left out")
	l.Warn("kept", "path", "/a b")
	var record map[string]string
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if record["msg"] != "kept" || record["path"] != "/a b" || record["level"] != "WARN" || record["time"] == "" {
		t.Errorf("record is %v", record)
	}
}

func TestFileIsAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, message := range []string{"first", "second"} {
		l, err := Open(Options{Format: Text, File: file, To: Syslog})
		if err != nil {
			t.Fatal(err)
		}
		l.Info(message)
		if l.Where != "the file "+file {
			t.Errorf("log is said to be in %q", l.Where)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "msg=first") || !strings.Contains(lines[1], "msg=second") {
		t.Errorf("file holds %q", lines)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file has mode %v, %v", st.Mode(), err)
	}
}

func TestPlaceMissing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none", "log")
	if _, err := Open(Options{File: missing}); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("error is %v", err)
	}
	if _, err := Open(Options{To: "moon"}); err == nil || !strings.Contains(err.Error(), "moon") {
		t.Errorf("error is %v", err)
	}
}

func TestNone(t *testing.T) {
	l, err := Open(Options{To: None})
	if err != nil {
		t.Fatal(err)
	}
	l.Error("into the void")
	if l.Where != "none" || l.Close() != nil {
		t.Errorf("log is said to be in %q", l.Where)
	}
}

func TestSeverities(t *testing.T) {
	var got []string
	to := func(severity string) func(string) error {
		return func(m string) error {
			got = append(got, severity+": "+m)
			return nil
		}
	}
	o := Options{Format: Text, Level: slog.LevelDebug}
	log := slog.New(o.bySeverity(to("debug"), to("info"), to("warn"), to("err")))
	log.Debug("a")
	log.Info("b")
	log.With("pid", 7).Warn("c")
	log.WithGroup("g").Error("d", "k", "v")
	log.Log(t.Context(), slog.LevelWarn+1, "e")
	want := []string{
		`debug: level=DEBUG msg=a`, `info: level=INFO msg=b`, `warn: level=WARN msg=c pid=7`,
		`err: level=ERROR msg=d g.k=v`, `warn: level=WARN+1 msg=e`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWarner(t *testing.T) {
	var got []string
	log := slog.New(NewWarner(func(format string, args ...any) {
		got = append(got, fmt.Sprintf(format, args...))
	}))
	log.Info("left out")
	log.Warn("100% sure")
	with := log.With("a", 1)
	with.Error("failed", "err", errors.New("no luck"))
	with.Warn("again", "b", "x")
	want := []string{"100% sure", "failed (a: 1, err: no luck)", "again (a: 1, b: x)"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
