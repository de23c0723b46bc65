package integration

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// holder is a process that has its working directory in the mount, until the function is called or the test ends.
func (r *rig) holder(dir string) (release func()) {
	r.t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	release = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}
	r.t.Cleanup(release)
	return release
}

func (r *rig) isMounted() bool { return mountpoints(r.t, r.mnt) != nil }

// TestTerminate ends the daemon by a signal: the mount goes, and everything is sealed.
func TestTerminate(t *testing.T) {
	r := mounted(t)
	r.write(r.path("letter"), "Dear reader")
	cipher := r.ciphertextOf("letter")
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.gone(r.pid)
	if r.isMounted() {
		t.Error("still mounted")
	}
	if i := r.info(cipher); !i.File.Header.Sealed {
		t.Error("the file is not sealed")
	}
	r.mount()
	if got := r.read(r.path("letter")); got != "Dear reader" {
		t.Errorf("%q", got)
	}
}

// TestUmountByOthers unmounts as the system does at shutdown, not by envfs.
func TestUmountByOthers(t *testing.T) {
	need(t, "umount")
	needRoot(t)
	r := mounted(t)
	r.write(r.path("letter"), "Dear reader")
	cipher := r.ciphertextOf("letter")
	run(t, nil, r.base, "umount", r.mnt).ok()
	r.gone(r.pid)
	if i := r.info(cipher); !i.File.Header.Sealed {
		t.Error("the file is not sealed")
	}
}

// TestBusy unmounts a mount that is in use: nothing happens, and the message names who uses it.
func TestBusy(t *testing.T) {
	r := mounted(t)
	r.mkdir(r.path("sub"))
	r.write(r.path("sub/letter"), "Dear reader")
	release := r.holder(r.path("sub"))
	busy := []string{`^envfs: in use by process [0-9]+ \(sleep\): working directory .*/clear/sub$`, `^envfs: .*/clear: mount is busy$`, `^hint: end these processes, or `}
	r.envfs("umount", r.mnt).fails(1, busy...)
	if err := syscall.Kill(r.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.until("a message about the holder", func() bool {
		return regexp.MustCompile(`msg="mount in use" pid=[0-9]+ command=sleep use="working directory" path=.*/clear/sub`).MatchString(r.read(r.log))
	})
	if got := r.read(r.path("sub/letter")); got != "Dear reader" {
		t.Errorf("while it waits, the mount serves %q", got)
	}
	release()
	r.gone(r.pid)
	if r.isMounted() {
		t.Error("still mounted")
	}

	// Lazily.
	r.mount()
	open, err := os.Open(r.path("sub/letter"))
	if err != nil {
		t.Fatal(err)
	}
	r.envfs("umount", "--lazy", r.mnt).ok()
	content := make([]byte, 20)
	if n, err := open.ReadAt(content, 0); string(content[:n]) != "Dear reader" {
		t.Errorf("an open file after a lazy unmount: %q %v", content[:n], err)
	}
	if err := open.Close(); err != nil {
		t.Error(err)
	}
	r.gone(r.pid)
}

// TestForeground runs under a service manager, which is told when the mount is usable and when it ends.
func TestForeground(t *testing.T) {
	r := newRig(t)
	dir, err := os.MkdirTemp("", "notify") // a short path: a socket's has no room for more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close() // only read
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		if err := socket.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := socket.Read(buf); err != nil || string(buf[:n]) != want {
			t.Errorf("the service manager hears %q, %v, want %q", buf[:n], err, want)
		}
	}
	cmd := exec.Command("envfs", "mount", "-f", "--log-format", "json", "--passphrase-file", r.pass, r.dir, r.mnt)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket.LocalAddr().String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }() // if it has not ended by itself
	hear("READY=1")
	r.write(r.path("letter"), "Dear reader")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if r.isMounted() {
		t.Error("still mounted")
	}
	if !strings.Contains(stdout.String(), "log: standard error") {
		t.Errorf("standard output: %q", &stdout)
	}
	var said []string
	for line := range strings.Lines(stderr.String()) {
		var message struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &message); err != nil || message.Time == "" || message.Level != "INFO" {
			t.Errorf("no message in JSON: %q", line)
		}
		said = append(said, message.Msg)
	}
	if strings.Join(said, ", ") != "mounted, unmounting, unmounted" {
		t.Errorf("messages: %q", said)
	}
}
