package fs

import (
	"sync/atomic"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// aclState remembers whether a directory has a default ACL, which replaces the umask for what is made inside.
type aclState struct{ state atomic.Int32 }

const (
	aclUnknown int32 = iota
	aclNone
	aclPresent
)

// modeFor returns the mode to create an entry with. The file system below applies a default ACL by itself, if there is one.
func (s *Server) modeFor(p place, mode, umask uint32) (uint32, error) {
	if s.opts.DisableXattr {
		return mode &^ umask, nil
	}
	acl := &p.dir.dir.acl.state
	state := acl.Load()
	if state == aclUnknown {
		var err error
		if state, err = s.askForACL(p.fd); err != nil {
			return 0, err
		}
		acl.Store(state)
	}
	if state == aclPresent {
		return mode, nil
	}
	return mode &^ umask, nil
}

// askForACL asks whether a directory has a default ACL. Only the answers that mean "none" count as that: any other is passed
// on and not remembered, or the umask would go on taking away what the ACL gives.
func (s *Server) askForACL(dir int) (state int32, err error) {
	switch n, err := s.store.Getxattr(backing.Target{FD: dir, Name: "."}, aclDefault, nil); {
	case err == unix.ENODATA || err == unix.EOPNOTSUPP || err == nil && n == 0:
		return aclNone, nil
	case err != nil:
		return aclUnknown, err
	}
	return aclPresent, nil
}

// giveTo makes a new entry belong to the caller, as if the caller had made it: the group is the caller's, unless the
// directory hands down its own. A chown clears set-id bits, so mode is put back where it has any.
func (s *Server) giveTo(caller *fuse.Caller, p place, t backing.Target, mode uint32) error {
	if s.uid != 0 || (caller.Uid == s.uid && caller.Gid == s.gid) {
		return nil
	}
	gid := int(caller.Gid)
	var dir unix.Stat_t
	if err := s.store.StatAt(p.fd, ".", &dir); err != nil {
		return err
	}
	if dir.Mode&unix.S_ISGID != 0 {
		gid = -1
	}
	if err := s.store.Chown(t, int(caller.Uid), gid); err != nil {
		return err
	}
	if mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return nil
	}
	return s.store.Chmod(t, mode&^unix.S_IFMT)
}

// make runs one call that makes an entry, with what has to happen before and after it, and fills in the answer.
// undo removes the entry again if it cannot be finished.
func (s *Server) make(in *fuse.InHeader, name string, out *fuse.EntryOut, call func(p place) (mode uint32, err error),
	undo func(dir int, name string) error) fuse.Status {
	p, err := s.at(in.NodeId, name, false)
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	if err := s.storeFullName(p); err != nil {
		return statusOf(err)
	}
	mode, err := call(p)
	if err != nil {
		s.dropUnused(p.fd, p.name)
		return statusOf(err)
	}
	st, err := s.finish(&in.Caller, p, mode)
	if err != nil {
		if uerr := undo(p.fd, p.name.Stored); uerr != nil {
			s.log.Warn("cannot remove a new entry that could not be finished", "name", p.name.Stored, "error", uerr)
		}
		s.dropUnused(p.fd, p.name)
		return statusOf(err)
	}
	s.fillEntry(s.table.adopt(p.link(), &st), &st, out)
	return fuse.OK
}

func (s *Server) finish(caller *fuse.Caller, p place, mode uint32) (st unix.Stat_t, err error) {
	if err := s.giveTo(caller, p, p.target(), mode); err != nil {
		return st, err
	}
	return st, s.store.StatAt(p.fd, p.name.Stored, &st)
}

// storeFullName puts the full name of a long name beside the entry that is about to be made, or leaves nothing behind.
func (s *Server) storeFullName(p place) error {
	err := s.vol.StoreFullName(p.fd, p.name)
	if err != nil {
		s.dropUnused(p.fd, p.name)
	}
	return err
}

// dropUnused removes the full name of an entry that was not made after all, unless there is one of that name.
func (s *Server) dropUnused(dir int, n volume.Name) {
	if !n.Long() {
		return
	}
	var st unix.Stat_t
	if err := s.store.StatAt(dir, n.Stored, &st); err == unix.ENOENT {
		s.vol.DropFullName(dir, n)
	}
}

// Mkdir makes a directory.
func (s *Server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.make(&in.InHeader, name, out, func(p place) (uint32, error) {
		mode, err := s.modeFor(p, in.Mode, in.Umask)
		if err != nil {
			return 0, err
		}
		return 0, s.store.Mkdir(p.fd, p.name.Stored, mode)
	}, s.store.Rmdir)
}

// Mknod makes a fifo, a socket, a device node, or an empty regular file, which needs no header and no key yet.
func (s *Server) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.make(&in.InHeader, name, out, func(p place) (uint32, error) {
		mode, err := s.modeFor(p, in.Mode, in.Umask)
		if err != nil {
			return 0, err
		}
		return mode, s.store.Mknod(p.fd, p.name.Stored, mode, int(in.Rdev))
	}, s.store.Unlink)
}

// Symlink makes a symbolic link.
func (s *Server) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	stored, err := s.vol.EncodeTarget(target)
	if err != nil {
		return statusOf(err)
	}
	return s.make(in, name, out, func(p place) (uint32, error) {
		return 0, s.store.Symlink(stored, p.fd, p.name.Stored)
	}, s.store.Unlink)
}

// Link gives an inode one more name. One made without a name (O_TMPFILE) gets its first.
func (s *Server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n := s.table.get(in.Oldnodeid)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if status := s.mayAct(); status != fuse.OK {
		return status
	}
	e := s.eventOn("link", n)
	e.NewPath = s.eventAt("", in.NodeId, name).Path
	return s.note(e, &in.Caller, s.link(n, in, name, out))
}

func (s *Server) link(n *inode, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	// The source is reached by descriptor: the locks of two directories cannot be held without an order.
	fd, err := s.openPath(n)
	if err != nil {
		return statusOf(err)
	}
	defer func() { _ = s.store.Close(fd) }() // opened with O_PATH: nothing to report
	p, err := s.at(in.NodeId, name, false)
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	if err := s.storeFullName(p); err != nil {
		return statusOf(err)
	}
	if err := s.store.LinkFD(fd, p.fd, p.name.Stored); err != nil {
		s.dropUnused(p.fd, p.name)
		return statusOf(err)
	}
	var st unix.Stat_t
	if err := s.store.StatAt(p.fd, p.name.Stored, &st); err != nil {
		if uerr := s.store.Unlink(p.fd, p.name.Stored); uerr != nil {
			s.log.Warn("cannot remove a new link that could not be finished", "name", p.name.Stored, "error", uerr)
		}
		s.dropUnused(p.fd, p.name)
		return statusOf(err)
	}
	s.table.linked(n, p.link())
	n.noteAttributes()
	if f := n.file.Load(); f != nil {
		f.Linked()
	}
	s.fillEntry(n, &st, out)
	return fuse.OK
}

// openPath returns a new descriptor, opened with O_PATH, that leads to n whether it has a name or not.
func (s *Server) openPath(n *inode) (int, error) {
	t, done, err := s.reach(n)
	if err != nil {
		return -1, err
	}
	defer done()
	if t.Name == "" {
		return s.store.Reopen(t.FD, unix.O_PATH)
	}
	fd, err := s.store.Open(t.FD, t.Name, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	if err := s.verify(fd, n); err != nil {
		_ = s.store.Close(fd)
		return -1, err
	}
	return fd, nil
}
