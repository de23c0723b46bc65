package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
)

// TestNotify runs a mount as a service manager does: it is told when the mount
// is usable, and when it ends.
func TestNotify(t *testing.T) {
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skipf("no FUSE: %v", err)
	} else if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	point := filepath.Join(dir, "mnt")
	if err := os.Mkdir(point, 0o700); err != nil {
		t.Fatal(err)
	}
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := envfs(t, "init", "--passphrase-file", pass, filepath.Join(dir, "vol")).CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, output)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	cmd := envfs(t, "mount", "-f", "--passphrase-file", pass, filepath.Join(dir, "vol"), point)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mounts.Unmount(point, true) })
	wantNotification(t, socket, "READY=1")
	table, err := mounts.Read()
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := table.At(point); !ok || !m.IsEnvfs() {
		t.Error("ready, but not mounted")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantNotification(t, socket, "STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the mount ended with %v", err)
	}
}

// envfs is a command line of this program: TestMain makes it of this test.
func envfs(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: program, Args: append([]string{"envfs"}, args...)}
}

func wantNotification(t *testing.T, socket *net.UnixConn, want string) {
	t.Helper()
	if err := socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := socket.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Fatalf("the service manager hears %q, %v, want %q", buf[:n], err, want)
	}
}
