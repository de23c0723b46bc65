package fs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// readAhead is how much the kernel reads ahead of a program, in bytes: several requests' worth of decryption for both sides to
// work at once, and not so much that a fault in a mapped file reads far more than it needs.
const readAhead = 512 << 10

// widenReadAhead lets the kernel read ahead further than the 128 KiB at which it caps what a FUSE server asks for. Only root
// may; for others it stays as it is, which is slower and nothing else.
func (s *Server) widenReadAhead(mountpoint string) {
	if s.uid != 0 || s.opts.MaxKernelReadahead > 0 && s.opts.MaxKernelReadahead < readAhead {
		return
	}
	var st unix.Statx_t
	// Without a request: attributes of the root that the kernel has cached would outlive a daemon that is killed.
	err := unix.Statx(unix.AT_FDCWD, mountpoint, unix.AT_STATX_DONT_SYNC, 0, &st)
	if err == nil {
		err = os.WriteFile(readAheadSetting(st.Dev_major, st.Dev_minor), fmt.Appendf(nil, "%d\n", readAhead>>10), 0)
	}
	if err != nil {
		s.log.Debug("the kernel keeps its own read-ahead", "error", err)
	}
}

// readAheadSetting is where the kernel keeps the KiB to read ahead on a device.
func readAheadSetting(major, minor uint32) string {
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", major, minor)
}
