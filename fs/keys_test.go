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
	start := time.Now()
	r := newRig(t, Options{KeyWait: time.Hour})
	r.write("f", pattern(1, 10_000))
	r.remount()
	r.kr.SetDelay(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), childTime)
	defer cancel()
	cmd := child(ctx, "interrupted", r.path("f"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := r.kr.Counters().Unwraps
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the other process said nothing")
	}
	thread, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the open to reach the key service", func() bool { return r.kr.Counters().Unwraps > before })
	if err := unix.Tgkill(cmd.Process.Pid, thread, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if !lines.Scan() || lines.Text() != unix.EINTR.Error() {
		t.Errorf("open returned %q", lines.Text())
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	r.kr.SetDelay(0)
}

// openInterrupted opens a file and tells how that ended. A signal with a handler does not restart an open.
func openInterrupted(path string, _ []string) error {
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	runtime.LockOSThread() // the signal must reach the thread that opens
	fmt.Println(unix.Gettid())
	_, err := unix.Open(path, unix.O_RDONLY, 0)
	fmt.Println(err)
	if !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}
