package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// commandExit is the end of a command that envfs has run for the user, and that has told of its failure itself.
type commandExit struct{ code int }

func (e *commandExit) Error() string {
	return fmt.Sprintf("the command has ended with exit code %d", e.code)
}

// run runs a command in the place of this one: with its files and its signals, and its exit code in a *commandExit unless that
// is 0.
func (f *freezeCommand) run(program string, args []string) error {
	cmd := &exec.Cmd{Path: program, Args: args, Stdin: f.app.stdin, Stdout: f.app.stdout, Stderr: f.app.stderr}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return commandResult(cmd, err)
		case sig := <-signals:
			if sig == syscall.SIGTERM || sig == syscall.SIGHUP { // those of the keyboard reach it without us
				_ = cmd.Process.Signal(sig) // fails only if it has ended
			}
		}
	}
}

// commandResult tells as a shell does how a command has ended.
func commandResult(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return err
	}
	code := exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return &commandExit{code}
}
