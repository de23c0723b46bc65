package mounts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMap(t *testing.T) {
	tests := []struct {
		line string
		want string
	}{
		{"7f1c-7f1d r--p 00000000 00:32 1234                       /mnt/clear/a b", "/mnt/clear/a b"},
		{"7f1c-7f1d r--p 00000000 00:33 1234                       /mnt/clear/a", ""},
		{"7f1c-7f1d rw-p 00000000 00:00 0 ", ""},
		{"7f1c-7f1d rw-p 00000000 00:00 0                          [stack]", ""},
		{"nonsense", ""},
	}
	for _, test := range tests {
		got, ok := parseMap(test.line, Device{0, 0x32})
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%q gives %q, %v, want %q", test.line, got, ok, test.want)
		}
	}
}

// withTmpfs mounts a small file system of its own, so that nothing else of
// this machine is found on its device.
func withTmpfs(t *testing.T) Mount {
	t.Helper()
	point, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", point, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = Unmount(point, true) })
	table, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	m, ok := table.At(point)
	if !ok {
		t.Fatalf("nothing mounted at %s", point)
	}
	return m
}

func TestHoldersAndUnmount(t *testing.T) {
	m := withTmpfs(t)
	if held, _, err := Holders(m.Device); err != nil || len(held) != 0 {
		t.Fatalf("a new mount is held by %v, %v", held, err)
	}
	file := filepath.Join(m.Point, "data")
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat") // waits for input in the directory
	cmd.Dir = m.Point
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	me := os.Getpid()
	wantHolders(t, m, uses{
		{me, "open file", file}, {cmd.Process.Pid, "working directory", m.Point},
	})
	f.Close()
	wantHolders(t, m, uses{
		{me, "mapped file", file}, {cmd.Process.Pid, "working directory", m.Point},
	})
	if err := Unmount(m.Point, false); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("unmounting a busy mount: %v", err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := unix.Munmap(mapped); err != nil {
		t.Error(err)
	}
	wantHolders(t, m, nil)
	if err := Unmount(m.Point, false); err != nil {
		t.Error(err)
	}
}

type uses []struct {
	pid       int
	use, path string
}

func wantHolders(t *testing.T, m Mount, want uses) {
	t.Helper()
	held, _, err := Holders(m.Device)
	if err != nil {
		t.Fatal(err)
	}
	var got, wanted []string
	for _, h := range held {
		got = append(got, fmt.Sprint(h.PID, h.Use, h.Path))
		if h.Command == "" || h.Command == "?" {
			t.Errorf("process %d has no name", h.PID)
		}
	}
	for _, w := range want {
		wanted = append(wanted, fmt.Sprint(w.pid, w.use, w.path))
	}
	slices.Sort(got)
	slices.Sort(wanted)
	if !slices.Equal(got, wanted) {
		t.Errorf("holders are\n%q, want\n%q", got, wanted)
	}
}

func TestUnmountOfNoMount(t *testing.T) {
	if err := Unmount(t.TempDir(), false); err == nil {
		t.Error("a plain directory was unmounted")
	}
}
