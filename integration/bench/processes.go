package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// until waits for something that happens elsewhere.
func until(ctx context.Context, what string, happened func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !happened() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("not %s: %w", what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// mountpointsBelow lists what is mounted at a folder and below it.
func mountpointsBelow(dir string) (found []string) {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	escapes := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := escapes.Replace(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found
}

// daemons finds the processes that have both folders of a mount among their
// arguments. Those that have ended, and wait for their parents, do not count.
func (p *place) daemons() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // gone meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if !slices.Contains(args, p.data) || !slices.Contains(args, p.mnt) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killDaemons ends what is left of those that serve the mount.
func (p *place) killDaemons() {
	for _, pid := range p.daemons() {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
	}
}

// followParent has "go run" take this process along when it is killed: a
// signal to it does not reach what it runs.
func followParent() {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid()))
	if err != nil || strings.TrimSpace(string(name)) != "go" {
		return
	}
	runtime.LockOSThread() // the thread of main lives as long as the process
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0)
}
