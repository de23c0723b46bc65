package mounts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrBusy means that something on the mount is in use: an open or mapped
// file, a working directory, or another mount on one of its directories.
var ErrBusy = errors.New("busy")

// Unmount takes away the mount at point. A lazy unmount hides it at once,
// even if it is busy, and lets what is in use go on working until it is
// closed. What root may do by umount(2), others do through fusermount3.
func Unmount(point string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(point, flags)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", point, ErrBusy)
	case errors.Is(err, unix.EPERM):
		return byHelper(point, lazy)
	}
	return fmt.Errorf("unmounting %s: %w", point, err)
}

// byHelper unmounts as an ordinary user.
func byHelper(point string, lazy bool) error {
	helper, err := Helper()
	if err != nil {
		return err
	}
	flags := "-u"
	if lazy {
		flags = "-uz"
	}
	cmd := exec.Command(helper, flags, "--", point)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	output, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(output))
	// The helper has no exit code of its own for EBUSY, only strerror's text.
	if strings.HasSuffix(strings.ToLower(text), unix.EBUSY.Error()) {
		return fmt.Errorf("%s: %w", point, ErrBusy)
	}
	return fmt.Errorf("unmounting %s: %s", point, text)
}

// ErrNoHelper means that neither fusermount3 nor fusermount is installed.
var ErrNoHelper = errors.New("fusermount3 is not installed")

// Helper returns the path of the program through which ordinary users mount
// and unmount.
func Helper() (string, error) {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoHelper
}
