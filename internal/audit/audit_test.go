package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// paths returns the path of each line of a log; other lines stand as their op,
// and what is no line as itself.
func paths(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		var l lineForm
		switch err := json.Unmarshal([]byte(line), &l); {
		case err != nil:
			found = append(found, "torn")
		case l.Path == "":
			found = append(found, fmt.Sprintf("%s %d", l.Op, l.Lost))
		default:
			found = append(found, l.Path)
		}
	}
	return found
}

func wantPaths(t *testing.T, file, want string) {
	t.Helper()
	if got := strings.Join(paths(t, file), " "); got != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(file), got, want)
	}
}

func openLog(t *testing.T, file string) *Log {
	t.Helper()
	l, err := Open(Options{File: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func record(t *testing.T, l *Log, path string) {
	t.Helper()
	if err := l.Record(Record{Op: "open", Path: path}); err != nil {
		t.Error(err)
	}
}

func TestFileIsAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	record(t, openLog(t, file), "/a")
	l := openLog(t, file)
	record(t, l, "/b")
	wantPaths(t, file, "/a /b")
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if s := l.Stats(); s != (Stats{Written: 1}) {
		t.Errorf("%+v", s)
	}
	var text lineForm
	b, _ := os.ReadFile(file)
	if err := json.Unmarshal([]byte(strings.SplitAfter(string(b), "\n")[0]), &text); err != nil {
		t.Fatal(err)
	}
	if at, err := time.Parse(time.RFC3339Nano, text.Time); err != nil || time.Since(at) > time.Minute {
		t.Errorf("time %q: %v", text.Time, err)
	}
}

func TestPlacesRefused(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for path, want := range map[string]error{
		dir: unix.EISDIR, filepath.Join(dir, "none", "log"): fs.ErrNotExist, pipe: errNotRegular, "/dev/null": errNotRegular,
	} {
		if _, err := Open(Options{File: path}); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "log")
	l := openLog(t, file)
	record(t, l, "/1")
	if err := os.Rename(file, file+".1"); err != nil {
		t.Fatal(err)
	}
	record(t, l, "/2")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	record(t, l, "/3")
	wantPaths(t, file+".1", "/1 /2")
	wantPaths(t, file, "/3")

	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reopening where there is no directory: %v", err)
	}
	record(t, l, "/4")
	wantPaths(t, filepath.Join(dir+"-away", "log"), "/3 /4")
}

// TestLinesStayWhole: several processes may write to one file.
func TestLinesStayWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	var writers sync.WaitGroup
	const each = 500
	for _, l := range []*Log{openLog(t, file), openLog(t, file)} {
		for range 2 {
			writers.Go(func() {
				for i := range each {
					record(t, l, "/"+strings.Repeat("x", i))
				}
			})
		}
		writers.Go(func() {
			for range 20 {
				if err := l.Reopen(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	count := 0
	for _, path := range paths(t, file) {
		if !strings.HasPrefix(path, "/") {
			t.Errorf("line %q", path)
		}
		count++
	}
	if count != 4*each {
		t.Errorf("%d lines, want %d", count, 4*each)
	}
}

// TestDiskFull fills a real file system.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	file, filler := filepath.Join(dir, "log"), filepath.Join(dir, "filler")
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l := openLog(t, file)
	record(t, l, "/first")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := l.Ready(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("ready on a full disk: %v", err)
	}
	failed := 0
	for range 100 { // the last page of the log has some room
		if err := l.Record(Record{Op: "open", Path: "/x"}); err != nil {
			failed++
			if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), file) {
				t.Fatal(err)
			}
		}
	}
	if failed == 0 || l.Stats().Lost != uint64(failed) {
		t.Errorf("%d records failed, %+v", failed, l.Stats())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	record(t, l, "/last")
	want := "/first" + strings.Repeat(" /x", 100-failed) + fmt.Sprintf(" torn lost %d /last", failed)
	wantPaths(t, file, want)
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	listen := func() *net.UnixConn {
		c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	receive := func(c *net.UnixConn) string {
		t.Helper()
		buf := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	c := listen()
	w, err := syslog.Dial("unixgram", path, syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "envfs-audit")
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{sinks: []*sink{{place: system{w}}}}
	record(t, l, "/a")
	if got := receive(c); !strings.HasPrefix(got, "<86>") || !strings.Contains(got, `"path":"/a"`) || !strings.Contains(got, "envfs-audit[") {
		t.Errorf("got %q", got)
	}

	// Without a receiver records are lost, and with a new one that is said.
	if err := errors.Join(c.Close(), os.Remove(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := l.Record(Record{Op: "open", Path: "/b"}); err == nil || !strings.Contains(err.Error(), "syslog: ") {
		t.Errorf("nobody listens: %v", err)
	}
	if l.Ready() == nil {
		t.Error("ready, but nobody listens")
	}
	c = listen()
	defer c.Close()
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if got := receive(c); !strings.Contains(got, `"op":"lost"`) || !strings.Contains(got, `"lost":1`) {
		t.Errorf("got %q", got)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestNilLog(t *testing.T) {
	var l *Log
	if err := errors.Join(l.Record(Record{}), l.Ready(), l.Reopen(), l.Close()); err != nil || l.Stats() != (Stats{}) {
		t.Error(err)
	}
}
