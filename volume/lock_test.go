package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFindHolder(t *testing.T) {
	const locks = `1: POSIX  ADVISORY  WRITE 100 fe:00:42 0 EOF
2: FLOCK  ADVISORY  READ 101 fe:00:421 0 EOF
3: FLOCK  ADVISORY  WRITE 102 fe:01:42 0 EOF
4: FLOCK  ADVISORY  WRITE 0 fe:00:43 0 EOF
4: -> FLOCK  ADVISORY  WRITE 103 fe:00:42 0 EOF
garbage
5: FLOCK  ADVISORY  WRITE 104 fe:00:42 0 EOF
6: FLOCK  ADVISORY  WRITE 105 fe:00:42 0 EOF
`
	for inode, want := range map[string]int{
		"fe:00:42": 104, "fe:00:421": 101, "fe:01:42": 102, "fe:00:43": 0, "fe:00:4": 0,
	} {
		if got := findHolder(strings.NewReader(locks), inode); got != want {
			t.Errorf("%s is held by %d, want %d", inode, got, want)
		}
	}
}

// TestLockBetweenProcesses opens a volume that another process holds.
func TestLockBetweenProcesses(t *testing.T) {
	kr := newTestKeyring()
	for _, test := range []struct {
		holder  string
		options OpenOptions
		ok      bool
	}{
		{"rw", OpenOptions{}, false},
		{"rw", OpenOptions{ReadOnly: true}, false},
		{"rw", OpenOptions{Unlocked: true}, true},
		{"ro", OpenOptions{}, false},
		{"ro", OpenOptions{ReadOnly: true}, true},
		{"ro", OpenOptions{Unlocked: true}, true},
	} {
		dir, _ := initVolume(t, kr, InitOptions{})
		holder, release := startHolder(t, dir, test.holder)
		if test.ok {
			mustOpen(t, dir, kr, test.options)
		} else {
			checkLocked(t, dir, kr, test.options, holder.Process.Pid)
		}
		if err := errors.Join(release.Close(), holder.Wait()); err != nil {
			t.Errorf("the holder: %v", err)
		}
		if !test.ok {
			mustOpen(t, dir, kr, test.options)
		}
	}
}

func checkLocked(t *testing.T, dir string, kr *testKeyring, o OpenOptions, holder int) {
	t.Helper()
	_, err := openVolume(t.Context(), dir, kr, o)
	var locked *LockedError
	if !errors.As(err, &locked) || !errors.Is(err, ErrLocked) {
		t.Fatalf("opening a held volume: %v", err)
	}
	if locked.Holder != holder || locked.Path != dir || !strings.Contains(err.Error(), dir) {
		t.Errorf("held by %d: %+v", holder, locked)
	}
}

func TestLockWithinProcess(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v, err := openVolume(t.Context(), dir, kr, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkLocked(t, dir, kr, OpenOptions{}, os.Getpid())
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, kr, OpenOptions{ReadOnly: true})
	mustOpen(t, dir, kr, OpenOptions{ReadOnly: true})
	checkLocked(t, dir, kr, OpenOptions{}, os.Getpid())
}

// TestLockEndsWithProcess: nothing must be cleared by hand after a kill.
func TestLockEndsWithProcess(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	holder, _ := startHolder(t, dir, "rw")
	if err := holder.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err == nil {
		t.Error("the holder survived")
	}
	mustOpen(t, dir, kr, OpenOptions{})
}

// TestLockFollowsDirectory: neither another name of the directory nor a new
// envfs.json lets a second writer in.
func TestLockFollowsDirectory(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	mustOpen(t, dir, kr, OpenOptions{})
	if err := mustOpen(t, dir, kr, OpenOptions{Unlocked: true}).UpdateKeyring(localRef("new")); err != nil {
		t.Fatal(err)
	}
	checkLocked(t, dir, kr, OpenOptions{}, os.Getpid())
	moved := filepath.Join(filepath.Dir(dir), "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	checkLocked(t, moved, kr, OpenOptions{}, os.Getpid())
}

// TestLockOnReadOnlyMount needs the right to mount, in a namespace of its own.
func TestLockOnReadOnlyMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	cmd := child(t, "bind", dir, "")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.Contains(string(out), "operation not permitted") {
		t.Skipf("may not mount: %v %s", err, out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInitWhileLocked(t *testing.T) {
	dir, kr := t.TempDir(), newTestKeyring()
	r, err := openRoot(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	lock, err := r.lock(true)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Init(t.Context(), dir, initOptions(kr, InitOptions{})); !errors.Is(err, ErrLocked) {
		t.Errorf("init of a locked directory: %v", err)
	}
	if got := listDir(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}
