package volume

import (
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// hollowCheck bounds the bytes that are read to find out whether a file without a header is hollow.
const hollowCheck = 1 << 20

// isHollow reports whether a file of size bytes, which begins with header, is one of which a power cut has left the size and
// nothing else: it was never synced. It has no header, and reads as zeros.
func isHollow(store *backing.Store, fd int, header []byte, size int64) (bool, error) {
	if !allZero(header) {
		return false, nil
	}
	buf := make([]byte, 64<<10)
	left := int64(hollowCheck)
	for at := int64(len(header)); at < size; {
		data, err := store.Seek(fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return true, nil
		}
		if err == nil {
			at = data // file systems that cannot tell have data everywhere
		}
		n, err := store.ReadAt(fd, buf, at)
		if err != nil {
			return false, err
		}
		at, left = at+int64(n), left-int64(n)
		if n == 0 {
			return true, nil
		}
		if !allZero(buf[:n]) || left < 0 {
			return false, nil
		}
	}
	return true, nil
}
