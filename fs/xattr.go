package fs

import (
	"os"
	"strings"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	capabilityAttr = "security.capability"
	selinuxAttr    = "security.selinux"
	aclDefault     = "system.posix_acl_default"
	// pathAttr shows the path of the ciphertext file, relative to the ciphertext directory. It is not listed.
	pathAttr = "system.envfs.path"
	// maxXattr is the kernel's own bound of a value's size.
	maxXattr = 64 << 10
	// usualXattr is enough for most values. Nearly all questions are for attributes that are not there.
	usualXattr = 256
)

// reachAttr is reach for the extended attribute calls.
func (s *Server) reachAttr(id uint64) (*inode, backing.Target, func(), fuse.Status) {
	s.touch()
	n := s.table.get(id)
	if n == nil {
		return nil, backing.Target{}, nil, fuse.Status(unix.ESTALE)
	}
	t, done, err := s.reach(n)
	if err != nil {
		return nil, backing.Target{}, nil, statusOf(err)
	}
	return n, t, done, fuse.OK
}

// GetXAttr reads an attribute. With an empty dest only its size is asked for.
func (s *Server) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	n := s.table.get(in.NodeId)
	if n == nil {
		return 0, fuse.Status(unix.ESTALE)
	}
	seen, absent := n.absent.look(attr)
	if absent {
		s.touch()
		return 0, s.noAttr(attr)
	}
	n, t, done, status := s.reachAttr(in.NodeId)
	if status != fuse.OK {
		return 0, status
	}
	defer done()
	if attr == pathAttr {
		return reply(dest, []byte(s.cipherPath(n)))
	}
	stored, encrypted, err := s.vol.AttrName(attr, n.special())
	if err != nil {
		return 0, noSuchAttr(err)
	}
	value, err := s.attr(t, stored)
	if err == unix.ENODATA {
		n.absent.note(seen, attr)
		return 0, s.noAttr(attr)
	}
	if err != nil {
		return 0, statusOf(err)
	}
	if encrypted {
		if value, err = s.vol.OpenAttr(attr, value); err != nil {
			return 0, s.fail("getxattr", n, err)
		}
	}
	return reply(dest, value)
}

// noAttr is the answer for an attribute that a file does not have. Where the kernel knows no SELinux, a label that is not there is
// one that is not supported: ls, which asks for one with each file, then asks no more. A label that somebody has stored is shown.
func (s *Server) noAttr(attr string) fuse.Status {
	if attr == selinuxAttr && !s.selinux.Load() {
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return fuse.ENODATA
}

// kernelHasSELinux tells whether SELinux was started with the kernel.
func kernelHasSELinux() bool {
	types, err := os.ReadFile("/proc/filesystems")
	return err != nil || strings.Contains(string(types), "\tselinuxfs\n")
}

// attr reads a stored value.
func (s *Server) attr(t backing.Target, stored string) ([]byte, error) {
	value := make([]byte, usualXattr)
	size, err := s.store.Getxattr(t, stored, value)
	if err == unix.ERANGE {
		value = make([]byte, maxXattr)
		size, err = s.store.Getxattr(t, stored, value)
	}
	if err != nil {
		return nil, err
	}
	return value[:size], nil
}

// noSuchAttr is the answer for a name that AttrName refuses. Names that envfs keeps for itself are not there to be seen.
func noSuchAttr(err error) fuse.Status {
	if err == unix.EPERM {
		err = unix.ENODATA
	}
	return statusOf(err)
}

// reply puts a value into dest, or says how large it is.
func reply(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists the names of attributes, each ended by a NUL.
func (s *Server) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	_, t, done, status := s.reachAttr(in.NodeId)
	if status != fuse.OK {
		return 0, status
	}
	defer done()
	buf := make([]byte, maxXattr)
	size, err := s.store.Listxattr(t, buf)
	if err != nil {
		return 0, statusOf(err)
	}
	var names []byte
	for name := range strings.SplitSeq(string(buf[:size]), "\x00") {
		if shown := s.vol.AttrShown(name); shown != "" {
			names = append(append(names, shown...), 0)
		}
	}
	return reply(dest, names)
}

// SetXAttr sets an attribute. Flags are XATTR_CREATE and XATTR_REPLACE.
func (s *Server) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	n, t, done, status := s.reachAttr(in.NodeId)
	if status != fuse.OK {
		return status
	}
	defer done()
	stored, encrypted, err := s.vol.AttrName(attr, n.special())
	if err != nil {
		return statusOf(err)
	}
	if encrypted {
		if len(data)+volume.AttrOverhead > maxXattr {
			return fuse.Status(unix.ENOSPC)
		}
		data = s.vol.SealAttr(attr, data)
	}
	err = s.store.Setxattr(t, stored, data, int(in.Flags))
	s.attrChanged(n, attr)
	return statusOf(err)
}

// RemoveXAttr removes an attribute.
func (s *Server) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	n, t, done, status := s.reachAttr(in.NodeId)
	if status != fuse.OK {
		return status
	}
	defer done()
	stored, _, err := s.vol.AttrName(attr, n.special())
	if err != nil {
		return noSuchAttr(err)
	}
	err = s.store.Removexattr(t, stored)
	s.attrChanged(n, attr)
	return statusOf(err)
}

// attrChanged is called after an attribute was changed. It drops what is remembered of it.
func (s *Server) attrChanged(n *inode, attr string) {
	n.noteAttributes()
	n.absent.changed()
	switch attr {
	case aclDefault:
		if n.dir != nil {
			n.dir.acl.state.Store(aclUnknown)
		}
	case capabilityAttr:
		if f := n.file.Load(); f != nil {
			f.ExpectFirstWrite()
		}
	}
}
