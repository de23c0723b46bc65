package mounts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockHolders returns the processes that hold a lock on a file, smallest
// first. It is empty for a file system whose locks /proc/locks does not name
// by the device number that stat gives, such as btrfs. envfs locks the
// ciphertext directory of a mount.
func LockHolders(file string) ([]int, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, fmt.Errorf("reading the table of locks: %w", err)
	}
	defer f.Close() // only read
	return parseLocks(f, Device{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}, st.Ino)
}

// parseLocks reads lines of the form that proc_locks(5) describes:
//
//	1: FLOCK  ADVISORY  WRITE 2433 08:01:3671056 0 EOF
//
// A line of a process that waits for the lock has "->" after the number, and so
// no device in its place.
func parseLocks(r io.Reader, device Device, inode uint64) ([]int, error) {
	var pids []int
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		where := strings.LastIndexByte(fields[5], ':')
		if where < 0 {
			continue
		}
		d, ok := parseDevice(fields[5][:where], 16)
		ino, err1 := strconv.ParseUint(fields[5][where+1:], 10, 64)
		pid, err2 := strconv.Atoi(fields[4])
		if !ok || err1 != nil || err2 != nil || d != device || ino != inode || pid <= 0 {
			continue
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return slices.Compact(pids), lines.Err()
}

// WaitUnlocked returns nil once nobody holds an exclusive flock on a file, and
// the error of ctx if that ends first. It takes a shared lock for an instant,
// so LockHolders and WaitAny are better where they work.
func WaitUnlocked(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // gives the lock back
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock of %s: %w", file, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
