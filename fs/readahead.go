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
	var st unix.Stat_t
	err := unix.Stat(mountpoint, &st)
	if err == nil {
		err = os.WriteFile(readAheadSetting(uint64(st.Dev)), fmt.Appendf(nil, "%d\n", readAhead>>10), 0)
	}
	if err != nil {
		s.log.Debug("the kernel keeps its own read-ahead", "error", err)
	}
}

// readAheadSetting is where the kernel keeps the KiB to read ahead on a device.
func readAheadSetting(dev uint64) string {
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
}
