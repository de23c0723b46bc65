package volume

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lock takes the mount lock of the directory without waiting. Closing the file
// gives it back. The error is a *LockedError if another process, or another
// Volume of this one, holds it.
func (r *root) lock(exclusive bool) (*os.File, error) {
	f, err := r.reopen()
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	err = flock(f, how|unix.LOCK_NB)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = &LockedError{Path: r.path, Holder: lockHolder(f)}
	default:
		err = r.failed("lock", "", err)
	}
	return nil, errors.Join(err, f.Close())
}

// lockConfig waits for the short lock that whoever rewrites envfs.json holds,
// and returns the locked file with its attributes. The winner of the lock may
// have replaced the file meanwhile: then the new one is locked instead. The
// file is opened for writing only because NFS demands that of an exclusive lock.
func (r *root) lockConfig() (*os.File, *unix.Stat_t, error) {
	for {
		f, err := r.openConfig(unix.O_RDWR)
		if err != nil {
			return nil, nil, err
		}
		if err := flock(f, unix.LOCK_EX); err != nil {
			return nil, nil, errors.Join(r.failed("lock", ConfigName, err), f.Close())
		}
		var locked, named unix.Stat_t
		err = r.store.Stat(int(f.Fd()), &locked)
		if err == nil {
			err = r.store.StatAt(r.fd(), ConfigName, &named)
		}
		if err != nil {
			return nil, nil, errors.Join(r.failed("stat", ConfigName, err), f.Close())
		}
		if locked.Dev == named.Dev && locked.Ino == named.Ino {
			return f, &locked, nil
		}
		if err := f.Close(); err != nil {
			return nil, nil, err
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

// lockHolder looks for a process that holds an flock on the inode of f: 0 if
// none is found, as when it lives in another PID namespace.
func lockHolder(f *os.File) int {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer locks.Close() // only read
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	return findHolder(locks, inode)
}

// findHolder reads lines as of /proc/locks, like
//
//	1: FLOCK  ADVISORY  WRITE 4711 fe:00:131073 0 EOF
//
// Waiters have "->" before FLOCK, and lose their place among the fields.
func findHolder(locks io.Reader, inode string) int {
	lines := bufio.NewScanner(locks)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != inode {
			continue
		}
		if pid, err := strconv.Atoi(field[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
