package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rig is a place for one volume and its mount, which the end of the test takes away whatever happened.
type rig struct {
	t    *testing.T
	base string   // everything is below
	dir  string   // ciphertext directory
	mnt  string   // mountpoint
	pass string   // file with the passphrase
	log  string   // log file of all mounts
	env  []string // of envfs, in addition to the test's own
	pid  int      // of the daemon of the last mount

	mountFlags []string // of every mount
	faults     bool     // errors in the log are expected
}

// newPlace makes a rig without a volume. The test runs beside others.
func newPlace(t *testing.T) *rig {
	t.Helper()
	needFuse(t)
	t.Parallel()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, base: base, dir: filepath.Join(base, "data"), mnt: filepath.Join(base, "clear"),
		pass: filepath.Join(base, "pass"), log: filepath.Join(base, "log"),
	}
	r.env = []string{"HOME=" + filepath.Join(base, "home")}
	for _, dir := range []string{r.mnt, filepath.Join(base, "home")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.write(r.pass, "correct horse\n")
	t.Cleanup(r.cleanUp)
	return r
}

// newRig makes a rig with a volume that a passphrase opens, not mounted.
func newRig(t *testing.T, initFlags ...string) *rig {
	t.Helper()
	r := newPlace(t)
	r.mountFlags = []string{"--passphrase-file", r.pass}
	r.envfs(append(append([]string{"init", "--argon2-time", "1", "--passphrase-file", r.pass}, initFlags...), r.dir)...).ok()
	return r
}

// mounted is newRig with the volume mounted.
func mounted(t *testing.T, flags ...string) *rig {
	t.Helper()
	r := newRig(t)
	r.mount(flags...)
	return r
}

// mount mounts the volume in the background.
func (r *rig) mount(flags ...string) {
	r.t.Helper()
	args := slices.Concat([]string{"mount", "--log-file", r.log}, r.mountFlags, flags, []string{r.dir, r.mnt})
	r.served(r.envfs(args...).ok().stdout)
}

// served notes which process serves a mount, of which envfs mount has told.
func (r *rig) served(out string) {
	r.t.Helper()
	found := regexp.MustCompile(`; process ([0-9]+), log: `).FindStringSubmatch(out)
	if found == nil {
		r.t.Fatalf("envfs mount does not say which process serves: %q", out)
	}
	r.pid, _ = strconv.Atoi(found[1])
}

// umount unmounts, after which the ciphertext is complete.
func (r *rig) umount() {
	r.t.Helper()
	r.envfs("umount", r.mnt).ok()
}

// remount makes everything cold: what is read from now on comes from the disk.
func (r *rig) remount(flags ...string) {
	r.t.Helper()
	r.umount()
	r.mount(flags...)
}

// crash kills the daemon without warning. The next mount clears away what is left, whatever is still open on it.
func (r *rig) crash() {
	r.t.Helper()
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	r.gone(r.pid)
}

// gone waits for the end of a process.
func (r *rig) gone(pid int) {
	r.t.Helper()
	r.until(fmt.Sprintf("the end of process %d", pid), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
}

// until waits for something that happens elsewhere.
func (r *rig) until(what string, happened func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: did not happen", what)
		}
	}
}

// returns waits for the end of what must end by itself.
func (r *rig) returns(what string, do func() error) error {
	r.t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		_ = syscall.Kill(r.pid, syscall.SIGKILL) // which frees whatever hangs in the mount
		r.t.Fatalf("%s: does not end", what)
		return nil
	}
}

// path is a path in the mount.
func (r *rig) path(elem ...string) string { return filepath.Join(append([]string{r.mnt}, elem...)...) }

// below is a path beside the mount.
func (r *rig) below(elem ...string) string {
	return filepath.Join(append([]string{r.base}, elem...)...)
}

func (r *rig) write(path, content string) {
	r.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) read(path string) string {
	r.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(content)
}

func (r *rig) mkdir(path string) {
	r.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// mountpoints lists what is mounted below a directory, the last one first.
func mountpoints(t *testing.T, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		if point := strings.Fields(line)[4]; point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	slices.Reverse(found)
	return found
}

// cleanUp leaves nothing mounted and nothing running, and looks through the log.
func (r *rig) cleanUp() {
	for _, point := range mountpoints(r.t, r.base) {
		out, err := exec.Command("envfs", "umount", point).CombinedOutput()
		if err == nil || unix.Unmount(point, 0) == nil { // the second, if it is another file system
			continue
		}
		r.t.Errorf("left mounted: %s: %s", point, out)
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
		if r.pid > 0 {
			_ = syscall.Kill(r.pid, syscall.SIGKILL)
		}
	}
	log, err := os.ReadFile(r.log)
	if err != nil {
		return // nothing was mounted
	}
	if found := regexp.MustCompile(`(?m)^(WARNING: DATA RACE|panic: |fatal error: |SIG[A-Z]+: )`).Find(log); found != nil {
		r.t.Errorf("the daemon broke:\n%s", log)
	} else if !r.faults && strings.Contains(string(log), "level=ERROR") {
		r.t.Errorf("errors in the log:\n%s", log)
	} else if r.t.Failed() {
		r.t.Logf("log of the mount:\n%s", log)
	}
}
