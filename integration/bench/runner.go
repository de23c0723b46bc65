package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// runner runs programs until its context ends, which kills them with all that
// they have started.
type runner struct {
	ctx context.Context
	env []string // in addition to this process's own
}

// command prepares a program in a process group of its own.
func (r *runner) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(r.ctx, args[0], args[1:]...)
	cmd.Env = append(environment(), r.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// environment is that of this process without what the user has set up for Vault.
func environment() (env []string) {
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "VAULT_") {
			env = append(env, variable)
		}
	}
	return env
}

// output runs a program and returns what it prints.
func (r *runner) output(args ...string) (string, error) {
	cmd := r.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", commandError(args, err, out.String())
	}
	return out.String(), nil
}

// timed runs a program and returns how long that took, in seconds.
func (r *runner) timed(args ...string) (float64, error) {
	start := time.Now()
	_, err := r.output(args...)
	return time.Since(start).Seconds(), err
}

// shell is timed for a script. It finds further arguments in $1 and so on.
func (r *runner) shell(script string, args ...string) (float64, error) {
	return r.timed(append([]string{"sh", "-c", script, "sh"}, args...)...)
}

// worker is timed for this program itself; see workerMain.
func (r *runner) worker(args ...string) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	return r.timed(append([]string{self, workerArgument}, args...)...)
}

// start runs a program that leaves a daemon behind, which may keep standard
// output and standard error open: they are a file. Standard input may be nil.
func (r *runner) start(logPath string, stdin *os.File, args ...string) (err error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = log, log
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if err := cmd.Run(); err != nil {
		return commandError(args, err, tail(logPath))
	}
	return nil
}

func commandError(args []string, err error, output string) error {
	const most = 2000
	if len(output) > most {
		output = "…" + output[len(output)-most:]
	}
	return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, strings.TrimRight(output, "\n"))
}

// tail returns the text of a log, as far as it can be had.
func tail(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
