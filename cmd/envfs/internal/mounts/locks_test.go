package mounts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseLocks(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  READ 300 fe:00:77 128 128
2: FLOCK  ADVISORY  WRITE 200 fe:00:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 201 fe:00:77 0 EOF
3: FLOCK  ADVISORY  WRITE 202 fe:01:77 0 EOF
4: FLOCK  ADVISORY  READ 200 fe:00:77 0 EOF
5: FLOCK  ADVISORY  READ 203 fe:00:78 0 EOF
6: FLOCK  ADVISORY  READ 0 fe:00:77 0 EOF
7: LEASE  ACTIVE    READ x y
`
	got, err := parseLocks(strings.NewReader(locks), Device{0xfe, 0}, 77)
	if err != nil || !slices.Equal(got, []int{200, 300}) {
		t.Errorf("holders are %v, %v", got, err)
	}
}

func TestLockHolders(t *testing.T) {
	dir := t.TempDir()
	if pids, err := LockHolders(dir); err != nil || len(pids) != 0 {
		t.Fatalf("an unlocked directory is held by %v, %v", pids, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if pids, err := LockHolders(dir); err != nil || !slices.Equal(pids, []int{os.Getpid()}) {
		t.Errorf("holders are %v, %v, want this process", pids, err)
	}
	if _, err := LockHolders(dir + "/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("holders of a missing file: %v", err)
	}
}

func TestWaitAny(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	processes, err := Watch([]int{cmd.Process.Pid, os.Getpid()})
	if err != nil || len(processes) != 2 {
		t.Fatalf("watching %v, %v", processes, err)
	}
	defer Close(processes)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := WaitAny(ended, processes); err != context.Canceled {
		t.Errorf("both run, but waiting gives %v", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := WaitAny(ctx, processes); err != nil {
		t.Errorf("one has ended, but waiting gives %v", err)
	}
	gone, err := Watch([]int{cmd.Process.Pid})
	if err != nil || len(gone) != 0 || WaitAny(ended, gone) != nil {
		t.Errorf("watching a process that has ended: %v, %v", gone, err)
	}
}

func TestWaitUnlocked(t *testing.T) {
	dir := t.TempDir()
	if err := WaitUnlocked(t.Context(), dir); err != nil {
		t.Fatalf("nobody holds a lock, but: %v", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := WaitUnlocked(ended, dir); err != context.Canceled {
		t.Errorf("a lock is held, but waiting gives %v", err)
	}
	unlocked := make(chan error)
	go func() { unlocked <- WaitUnlocked(t.Context(), dir) }()
	f.Close()
	if err := <-unlocked; err != nil {
		t.Error(err)
	}
}
