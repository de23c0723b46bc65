package fs

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pollingName is a name in the root of every file system that go-fuse serves. Polling it is answered with ENOSYS.
const pollingName = ".go-fuse-epoll-hack"

// refusePolling has the kernel ask once whether files here can be polled, and learn that it need not ask again: they are always
// ready. Otherwise the runtime of a Go program, this one among them, would ask for each file that it opens, and wait for the
// answer in a thread that it cannot spare. It returns when the mount answers.
func refusePolling(mountpoint string) error {
	fd, err := unix.Open(filepath.Join(mountpoint, pollingName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI | unix.POLLOUT}}, 0)
	return errors.Join(err, unix.Close(fd))
}
