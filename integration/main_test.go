package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(taskEnv); task != "" {
		os.Exit(runTask(task))
	}
	code, err := runWithProgram(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runWithProgram builds envfs, puts it and the helper of mount(8) at the head of PATH, and runs the tests.
func runWithProgram(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "envfs-integration-")
	if err != nil {
		return 0, err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); err == nil {
			err = removeErr
		}
	}()
	args := []string{"build", "-o", filepath.Join(dir, "envfs")}
	if os.Getenv("ENVFS_RACE") == "1" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/envfs")...)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go %s: %w\n%s", strings.Join(build.Args[1:], " "), err, out)
	}
	if err := os.Symlink("envfs", filepath.Join(dir, "mount.envfs")); err != nil {
		return 0, err
	}
	if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
		return 0, err
	}
	// What the user has set up for Vault is not for the tests.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			if err := os.Unsetenv(name); err != nil {
				return 0, err
			}
		}
	}
	return m.Run(), nil
}

// need skips a test whose program is not installed, or fails it where all must be there.
func need(t *testing.T, programs ...string) {
	t.Helper()
	packages := map[string]string{
		"setfacl": "acl", "getfacl": "acl", "getfattr": "attr", "setfattr": "attr", "unshare": "util-linux", "mount": "mount",
		"umount": "mount", "findmnt": "util-linux", "setpriv": "util-linux",
		"script": "bsdutils", "fusermount3": "fuse3", "find": "findutils", "du": "coreutils", "dd": "coreutils", "borg": "borgbackup",
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		name := packages[program]
		if name == "" {
			name = program
		}
		lack(t, fmt.Sprintf("%s is not installed (Debian package %s)", program, name))
	}
}

// needFuse is need for the device.
func needFuse(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lack(t, "no FUSE: "+err.Error())
	}
	_ = f.Close() // only opened
}

// needRoot is need for the rights that only root has.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lack(t, "needs root")
	}
}

func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ENVFS_TEST_STRICT") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}
