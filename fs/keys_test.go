package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// TestNoKey: a file whose key cannot be had does not open, with an errno that says why. All that needs no key works, and
// the file opens again once the key service is back.
func TestNoKey(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault error
		want  unix.Errno
	}{
		{"unreachable", &keyring.Error{Class: keyring.ErrUnreachable}, unix.ENOKEY},
		{"denied", &keyring.Error{Class: keyring.ErrDenied}, unix.EACCES},
		{"revoked", &keyring.Error{Class: keyring.ErrRevoked}, unix.EKEYREVOKED},
		{"misconfigured", &keyring.Error{Class: keyring.ErrConfig}, unix.ENOKEY},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{KeyWait: 300 * time.Millisecond})
			names := []string{"f", "g", "back", longName('l', 200)}
			for i, name := range names {
				r.write(name, pattern(uint64(i), 10_000))
			}
			r.remount()
			r.kr.SetFault(c.fault)
			refused(t, r, "f", c.want)
			refused(t, r, names[3], c.want)
			r.kr.SetFault(nil)
			r.want("back", pattern(2, 10_000))
			r.write("new", []byte("new"))
			r.want("new", []byte("new"))
			r.kr.SetFault(c.fault)
			r.want("back", pattern(2, 10_000)) // its key is at hand
			refused(t, r, "g", c.want)
			r.kr.SetFault(nil)
		})
	}
}

// TestOpenFilesSurviveAnOutage: what is open goes on, including writing, syncing and sealing.
func TestOpenFilesSurviveAnOutage(t *testing.T) {
	r := newRig(t, Options{})
	r.write("f", pattern(1, 10_000))
	r.remount()
	f, err := os.OpenFile(r.path("f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r.kr.Outage()
	if _, err := f.WriteAt([]byte("during the outage"), 5000); err != nil {
		t.Error(err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	r.seal()
	r.kr.Restore()
	r.remount()
	want := pattern(1, 10_000)
	copy(want[5000:], "during the outage")
	r.want("f", want)
}

// TestOpenIsInterrupted: a program that waits for the key service can be interrupted at once.
func TestOpenIsInterrupted(t *testing.T) {
	r := newRig(t, Options{KeyWait: time.Hour})
	r.write("f", pattern(1, 10_000))
	r.remount()
	r.kr.SetDelay(time.Hour)
	before := r.kr.Counters().Unwraps
	r.interrupts("f", unix.O_RDONLY, func() bool { return r.kr.Counters().Unwraps > before }, func() {})
}

// TestWaitingForAKeyBlocksNobody: who waits for the key of a new file keeps nobody from the directory, and can be interrupted.
func TestWaitingForAKeyBlocksNobody(t *testing.T) {
	for name, flags := range map[string]int{"nameless": unix.O_TMPFILE | unix.O_RDWR, "named": unix.O_CREAT | unix.O_EXCL | unix.O_RDWR} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{KeyWait: time.Hour}, func(r *rig) { r.open.Pool.Size = 4 })
			waitFor(t, "the pool to be full", func() bool { return r.vol.Stats().Pool.Ready == 4 })
			if err := os.Mkdir(r.path("d"), 0o755); err != nil {
				t.Fatal(err)
			}
			r.write("d/f", pattern(1, 10))
			path := "d"
			if name == "named" {
				path = "new" // the kernel itself keeps others from the directory in which it makes a file
			}
			r.kr.SetDelay(time.Hour)
			r.interrupts(path, flags, func() bool { return r.vol.Stats().Pool.Target > 4 }, func() { // it was found empty
				within(t, "unlink", func() error { return os.Remove(r.path("d/f")) })
				within(t, "mkdir", func() error { return os.Mkdir(r.path("d/more"), 0o755) })
				within(t, "list", func() error { _, err := os.ReadDir(r.path("d")); return err })
			})
		})
	}
}

// within fails the test if a call does not return while the key service says nothing.
func within(t *testing.T, what string, call func() error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("%s waits for the key service", what)
	}
}

// interrupts has another process open a path again and again until it waits, which reached tells. Then it calls meanwhile and
// sends a signal, which must end the open at once.
func (r *rig) interrupts(path string, flags int, reached func() bool, meanwhile func()) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	cmd := child(ctx, "interrupted", r.path(path), strconv.Itoa(flags))
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		r.t.Fatal("the other process said nothing")
	}
	thread, err := strconv.Atoi(lines.Text())
	if err != nil {
		r.t.Fatal(err)
	}
	waitFor(r.t, "the open to reach the key service", reached)
	meanwhile()
	begun := time.Now()
	if err := unix.Tgkill(cmd.Process.Pid, thread, unix.SIGUSR1); err != nil {
		r.t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != unix.EINTR.Error() {
		r.t.Errorf("open returned %q", lines.Text())
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		r.t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		r.t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		r.t.Errorf("it took %v", took)
	}
	r.kr.SetDelay(0)
}

// openInterrupted opens a file until that fails and tells how. A signal with a handler does not restart an open.
func openInterrupted(path string, args []string) error {
	flags, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	runtime.LockOSThread() // the signal must reach the thread that opens
	fmt.Println(unix.Gettid())
	for n := 0; err == nil; n++ {
		name := path
		if flags&unix.O_CREAT != 0 {
			name = fmt.Sprint(path, n)
		}
		_, err = unix.Open(name, flags, 0o600)
	}
	fmt.Println(err)
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}
