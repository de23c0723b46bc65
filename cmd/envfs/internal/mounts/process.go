package mounts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Process watches a running process. It names that process and no other, also
// after the kernel has given its number away again.
type Process struct {
	PID int
	fd  int // a pidfd, readable once the process has ended
}

// Watch starts to watch processes and leaves out those that are gone.
func Watch(pids []int) ([]Process, error) {
	var processes []Process
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		switch {
		case errors.Is(err, unix.ESRCH):
			continue
		case err != nil:
			Close(processes)
			return nil, fmt.Errorf("watching process %d: %w", pid, err)
		}
		processes = append(processes, Process{PID: pid, fd: fd})
	}
	return processes, nil
}

// Close ends the watch.
func Close(processes []Process) {
	for _, p := range processes {
		_ = unix.Close(p.fd) // nothing was written
	}
}

// WaitAny returns nil once one of the processes has ended, at once if there
// are none, and the error of ctx if that ends first.
func WaitAny(ctx context.Context, processes []Process) error {
	const slice = 50 * time.Millisecond // how late the end of ctx may be noticed
	fds := make([]unix.PollFd, len(processes))
	for len(fds) > 0 {
		for i, p := range processes {
			fds[i] = unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN}
		}
		n, err := unix.Poll(fds, int(slice.Milliseconds()))
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for a process: %w", err)
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}
