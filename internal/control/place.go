package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Directory returns where the sockets of a user's mounts are: /run/envfs for
// root, else envfs in runtimeDir, which is the value of XDG_RUNTIME_DIR, or in
// /run/user/UID if that is empty. It makes nothing.
func Directory(uid int, runtimeDir string) (string, error) {
	if uid == 0 {
		return "/run/envfs", nil
	}
	if !filepath.IsAbs(runtimeDir) {
		runtimeDir = filepath.Join("/run/user", strconv.Itoa(uid))
		if _, err := os.Stat(runtimeDir); err != nil {
			return "", ErrNoDirectory
		}
	}
	return filepath.Join(runtimeDir, "envfs"), nil
}

// prepare makes the directory of sockets, and refuses one that others can
// write to or have made.
func prepare(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s: not a directory", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s: %w", dir, ErrPeer)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("%s: open to others; it must have mode 0700", dir)
	}
	return nil
}

// maxSocketPath is how long the path in a socket address may be.
const maxSocketPath = 107

// reach calls f with a path to the same file as path that fits into a socket
// address.
func reach(path string, f func(path string) error) error {
	if len(path) <= maxSocketPath {
		return f(path)
	}
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close() // only a way to get there
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

// listen makes a socket at path, in place of one that nobody listens on.
func listen(path string) (l *net.UnixListener, err error) {
	if err := prepare(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if c, err := dial(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, errors.Join(ErrServing, c.Close()))
	}
	// Nobody ever meets a socket that does not listen or has another mode.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = reach(fresh, func(at string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: at, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then the name may be another one's
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(fresh))
	}
	return l, nil
}

func dial(path string) (c *net.UnixConn, err error) {
	err = reach(path, func(at string) error {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: at, Net: "unix"})
		return err
	})
	return c, err
}

// peerOf asks the kernel who is at the other end.
func peerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return Peer{}, fmt.Errorf("asking who connects: %w", err)
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}
