package volume

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// childTask, in the environment, makes the test binary do a task instead.
const childTask = "ENVFS_VOLUME_TEST_TASK"

func TestMain(m *testing.M) {
	task := os.Getenv(childTask)
	if task == "" {
		os.Exit(m.Run())
	}
	if err := runChild(task, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", task, err)
		os.Exit(1)
	}
}

// child makes a process that does task; all of them use newTestKeyring.
func child(t *testing.T, task, dir, argument string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, dir, argument)
	cmd.Env = append(os.Environ(), childTask+"="+task)
	return cmd
}

func runChild(task, dir, argument string) error {
	ctx, kr := context.Background(), newTestKeyring()
	switch task {
	case "init": // killed before call number argument
		_, err := Init(ctx, dir, initOptions(kr, InitOptions{Store: killingStore(argument)}))
		return err
	case "update": // likewise; the argument is the new note too
		v, err := openVolume(ctx, dir, kr, OpenOptions{Unlocked: true})
		if err != nil {
			return err
		}
		v.store = killingStore(argument)
		return v.UpdateKeyring(localRef(argument))
	case "hold": // holds the volume until its input ends
		return hold(ctx, dir, kr, OpenOptions{ReadOnly: argument == "ro"})
	case "bind": // in a mount namespace of its own, on a read-only mount
		return openOnReadOnlyMount(ctx, dir, kr)
	}
	return fmt.Errorf("unknown task")
}

func killingStore(at string) *backing.Store {
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		panic(err)
	}
	return &backing.Store{Hook: &hook{at: n, action: func() error {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}}}
}

func hold(ctx context.Context, dir string, kr *testKeyring, o OpenOptions) error {
	v, err := openVolume(ctx, dir, kr, o)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return v.Close()
}

func openOnReadOnlyMount(ctx context.Context, dir string, kr *testKeyring) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/x", nil, 0o600); err == nil {
		return fmt.Errorf("the mount is not read-only")
	}
	for _, readOnly := range []bool{true, false} {
		v, err := openVolume(ctx, dir, kr, OpenOptions{ReadOnly: readOnly})
		if err != nil {
			return err
		}
		if err := v.Close(); err != nil {
			return err
		}
	}
	return nil
}

// startHolder starts a process that holds the volume, and waits until it does.
func startHolder(t *testing.T, dir, mode string) (cmd *exec.Cmd, release io.Closer) {
	t.Helper()
	cmd = child(t, "hold", dir, mode)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return cmd, in
}
