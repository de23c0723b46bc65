package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// taskEnv makes the test program carry out a task instead of the tests: a process of its own, as programs are.
const taskEnv = "ENVFS_TEST_TASK"

// goneCode is how a task ends whose file system has gone away.
const goneCode = 7

// tasks are what such a process can do.
func tasks() map[string]func(args []string) error {
	all := map[string]func(args []string) error{"stress": stressTask, "vault": vaultTask}
	for name, task := range syncers() {
		all[name] = func(args []string) error {
			// So that it stays in this mount, and does not go on below the mountpoint once the mount is gone.
			if err := os.Chdir(args[0]); err != nil {
				return err
			}
			return task.work(".", args[1])
		}
	}
	return all
}

// runTask carries out a task and returns its exit code.
func runTask(name string) int {
	err := tasks()[name](os.Args[1:])
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, name+":", err)
	for _, gone := range []error{syscall.ENOTCONN, syscall.ECONNABORTED, syscall.EIO} {
		if errors.Is(err, gone) {
			return goneCode
		}
	}
	return 1
}

// process is one that carries out a task.
type process struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{} // closed then
}

func startTask(t *testing.T, task string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: task, cmd: exec.Command("/proc/self/exe", args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), taskEnv+"="+task)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended is looked at by others
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // if it has not ended
		<-p.ended
	})
	return p
}

// kill ends a process that must not have ended by itself.
func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill() // it may have ended, which is seen next
	if <-p.ended; p.cmd.ProcessState.Exited() {
		p.t.Errorf("%s has ended by itself: %v\n%s", p.name, p.cmd.ProcessState, &p.output)
	}
}

// ends waits for the end of a process, which must be of its own accord.
func (p *process) ends(codes ...int) {
	p.t.Helper()
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); !slices.Contains(codes, code) {
		p.t.Errorf("%s: %v, want one of the exit codes %v\n%s", p.name, p.cmd.ProcessState, codes, &p.output)
	}
}

// soaking returns how often something is done: short in the tests, long, and a multiple of it, where ENVFS_SOAK is a number.
func soaking(short, long int) int {
	if times, err := strconv.Atoi(os.Getenv("ENVFS_SOAK")); err == nil && times > 0 {
		return long * times
	}
	return short
}
