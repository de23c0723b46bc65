package powercut

import (
	"encoding/binary"

	"github.com/envfs/envfs/internal/backing"
)

// Inodes is a hook that shows the files of a directory, which an Image was written to, under the inode numbers that they had
// when they were recorded: a power cut does not change them. Other files keep the numbers they have. A nil *Inodes changes
// nothing.
type Inodes struct {
	had map[uint64]uint64 // by the number it has
}

var _ backing.Observer = (*Inodes)(nil)

// Before lets every call pass.
func (n *Inodes) Before(*backing.Call) error { return nil }

// After changes the inode numbers in the answer of a call.
func (n *Inodes) After(c *backing.Call, err error) {
	switch {
	case n == nil || err != nil:
	case c.Stat != nil:
		c.Stat.Ino = n.shown(c.Stat.Ino)
	case c.Op == backing.OpReaddir:
		n.showEntries(c.Data)
	}
}

func (n *Inodes) shown(ino uint64) uint64 {
	if n != nil {
		if had, ok := n.had[ino]; ok {
			return had
		}
	}
	return ino
}

// showEntries changes the records of getdents64(2), which begin with the inode number; their length is at offset 16.
func (n *Inodes) showEntries(b []byte) {
	for len(b) >= 18 {
		binary.NativeEndian.PutUint64(b, n.shown(binary.NativeEndian.Uint64(b)))
		b = b[binary.NativeEndian.Uint16(b[16:]):]
	}
}
