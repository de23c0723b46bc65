package control

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDirectory(t *testing.T) {
	for _, test := range []struct {
		uid           int
		runtime, want string
		err           error
	}{
		{0, "/run/user/0", "/run/envfs", nil},
		{0, "", "/run/envfs", nil},
		{1000, "/tmp/rt", "/tmp/rt/envfs", nil},
		{987654, "", "", ErrNoDirectory},
		{987654, "not/absolute", "", ErrNoDirectory},
	} {
		if got, err := Directory(test.uid, test.runtime); got != test.want || !errors.Is(err, test.err) {
			t.Errorf("user %d, %q: %q, %v", test.uid, test.runtime, got, err)
		}
	}
}

func TestModes(t *testing.T) {
	path := socketPath(t)
	old := unix.Umask(0)
	defer unix.Umask(old)
	s := serveAt(t, path, nil)
	for name, want := range map[string]os.FileMode{filepath.Dir(path): os.ModeDir | 0o700, path: os.ModeSocket | 0o600} {
		if st, err := os.Lstat(name); err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, want %v: %v", name, st.Mode(), want, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDirectoryRefused(t *testing.T) {
	for what, make := range map[string]func(dir string) error{
		"open to the group": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o710)) },
		"open to all":       func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o701)) },
		"a link":            func(dir string) error { return os.Symlink(filepath.Dir(dir), dir) },
		"a file":            func(dir string) error { return os.WriteFile(dir, nil, 0o700) },
		"another user's": func(dir string) error {
			if os.Geteuid() != 0 {
				return os.Mkdir(dir, 0o777)
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, 65534))
		},
	} {
		path := socketPath(t)
		if err := make(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if s, err := Listen(path, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("a directory that is %s was taken", what)
			_ = s.Close()
		}
	}
}

// TestStaleSocket: what a process that was killed has left is replaced.
func TestStaleSocket(t *testing.T) {
	path := socketPath(t)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".new"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask(t, path, "echo", "", nil); !errors.Is(err, ErrNotServing) {
		t.Errorf("nobody listens: %v", err)
	}
	serveAt(t, path, methods())
	if err := ask(t, path, "echo", "x", &echo{}); err != nil {
		t.Error(err)
	}
}

// TestLiveSocket: that of a process which answers is not replaced, and not
// removed by another one.
func TestLiveSocket(t *testing.T) {
	path := socketPath(t)
	first := serveAt(t, path, methods())
	if _, err := Listen(path, methods(), slog.New(slog.DiscardHandler)); !errors.Is(err, ErrServing) {
		t.Errorf("second server: %v", err)
	}
	if err := ask(t, path, "echo", "x", &echo{}); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	serveAt(t, path, methods())
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := ask(t, path, "echo", "x", &echo{}); err != nil {
		t.Errorf("the socket of another server is gone: %v", err)
	}
}

func TestLongPath(t *testing.T) {
	dir := t.TempDir()
	for _, length := range []int{maxSocketPath - 4, maxSocketPath - 3, maxSocketPath, maxSocketPath + 1, 300} {
		pad := filepath.Join(dir, strings.Repeat("d", 20), strings.Repeat("e", max(1, length-len(dir)-60)))
		if err := os.MkdirAll(pad, 0o700); err != nil {
			t.Fatal(err)
		}
		rest := length - len(pad) - len("/envfs/.sock")
		if rest < 1 {
			continue // the directory for tests has a longer path itself
		}
		path := filepath.Join(pad, "envfs", strings.Repeat("n", rest)+".sock")
		if len(path) != length {
			t.Fatalf("%d bytes, want %d", len(path), length)
		}
		s := serveAt(t, path, methods())
		if err := ask(t, path, "echo", "x", &echo{}); err != nil {
			t.Errorf("%d bytes: %v", length, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%d bytes: still there", length)
		}
	}
}

// TestOtherUser: even where the modes of files would let somebody in, the
// server does not answer.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	path := socketPath(t)
	serveAt(t, path, methods())
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		_, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534)
		if e != 0 {
			answer <- e.Error()
			return
		}
		answer <- speakRaw(path, `{"version":1,"method":"fail"}`+"\n")
	}()
	if got := <-answer; got != "connected: " {
		t.Errorf("another user gets %q", got)
	}
}

// speakRaw stays on its thread, as package net would not.
func speakRaw(path, text string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err.Error()
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(30 * time.Second / time.Second)}); err != nil {
		return err.Error()
	}
	_, _ = io.WriteString(f, text) // fails if it was closed already
	got, _ := io.ReadAll(f)        // likewise
	return "connected: " + string(got)
}
