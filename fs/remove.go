package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Unlink removes a name. It needs no key.
func (s *Server) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if status := s.mayAct(); status != fuse.OK {
		return status
	}
	e := s.eventAt("unlink", in.NodeId, name)
	status := s.unlink(in, name, &e)
	return s.note(e, &in.Caller, status)
}

func (s *Server) unlink(in *fuse.InHeader, name string, e *AuditEvent) fuse.Status {
	p, err := s.at(in.NodeId, name, true)
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	v, err := s.victim(p)
	if err != nil {
		return statusOf(err)
	}
	s.identify(e, p)
	if err := s.store.Unlink(p.fd, p.name.Stored); err != nil {
		v.spare()
		return statusOf(err)
	}
	s.counters.removes.Add(1)
	v.gone(p.link())
	s.vol.DropFullName(p.fd, p.name)
	return fuse.OK
}

// Rmdir removes an empty directory.
func (s *Server) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	p, err := s.at(in.NodeId, name, true)
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	v, err := s.victim(p)
	if err != nil {
		return statusOf(err)
	}
	err = s.store.Rmdir(p.fd, p.name.Stored)
	if err == unix.ENOTEMPTY {
		err = s.sweepAndRemove(p)
	}
	if err != nil {
		v.spare()
		return statusOf(err)
	}
	v.gone(p.link())
	s.vol.DropFullName(p.fd, p.name)
	return fuse.OK
}

// sweepAndRemove removes a directory in which nothing is left but full names whose entries are gone.
func (s *Server) sweepAndRemove(p place) error {
	fd, err := s.store.Open(p.fd, p.name.Stored, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = s.store.Close(fd) }() // only read from; and the directory may be gone, whatever this says
	entries, err := s.entryNames(fd)
	if err != nil {
		return err
	}
	if swept, err := s.vol.Sweep(fd, entries); err != nil || !swept {
		return errors.Join(unix.ENOTEMPTY, err)
	}
	return s.store.Rmdir(p.fd, p.name.Stored)
}

// victim is an inode that is about to lose a name.
type victim struct {
	s      *Server
	n      *inode // nil if the kernel does not know it
	last   bool   // the name is its last
	pinned bool   // by this call
}

// victim looks at what p names before it goes. An inode that loses the last name by which it is known here is kept reachable
// by a descriptor until the kernel forgets it. That it is open does not suffice: the kernel may know it for longer.
func (s *Server) victim(p place) (*victim, error) {
	var st unix.Stat_t
	if err := s.store.StatAt(p.fd, p.name.Stored, &st); err != nil {
		return nil, err
	}
	v := &victim{s: s, n: s.table.find(&st)}
	v.last = st.Nlink <= 1 || st.Mode&unix.S_IFMT == unix.S_IFDIR
	if v.n == nil || v.n.pin.Load() > 0 || (!v.last && !s.table.onlyName(v.n, p.link())) {
		return v, nil
	}
	fd, err := s.store.Open(p.fd, p.name.Stored, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	v.n.pin.Store(int64(fd) + 1)
	v.pinned = true
	return v, nil
}

// spare undoes what victim did: the name stays.
func (v *victim) spare() {
	if !v.pinned {
		return
	}
	if pin := v.n.pin.Swap(0); pin > 0 {
		_ = v.s.store.Close(int(pin - 1)) // opened with O_PATH: nothing to report
	}
}

// gone records that the name l is gone. The caller holds the lock of the directory.
func (v *victim) gone(l link) {
	if v.n == nil {
		return
	}
	v.s.table.removed(v.n, l, v.last)
	if f := v.n.file.Load(); v.last && f != nil {
		f.Unlinked()
	}
}

// Rename moves a name, replaces what has the new one, or exchanges two.
func (s *Server) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if status := s.mayAct(); status != fuse.OK {
		return status
	}
	e := s.eventAt("rename", in.NodeId, oldName)
	e.NewPath = s.eventAt("", in.Newdir, newName).Path
	status := s.renameEntries(in, oldName, newName, &e)
	return s.note(e, &in.Caller, status)
}

func (s *Server) renameEntries(in *fuse.RenameIn, oldName, newName string, e *AuditEvent) fuse.Status {
	from, to, err := s.twoPlaces(in.NodeId, oldName, in.Newdir, newName)
	if err != nil {
		return statusOf(err)
	}
	defer from.done()
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	s.identify(e, from)
	return statusOf(s.rename(from, to, uint(in.Flags)))
}

func (s *Server) rename(from, to place, flags uint) error {
	var st unix.Stat_t
	if err := s.store.StatAt(from.fd, from.name.Stored, &st); err != nil {
		return err
	}
	moving := s.table.find(&st)
	replaced, err := s.victim(to)
	switch {
	case err == unix.ENOENT:
		replaced = &victim{s: s}
	case err != nil:
		return err
	case flags != 0: // it stays: the rename fails, or the two change places
		replaced.spare()
	}
	if err := s.storeFullName(to); err != nil {
		replaced.spare()
		return err
	}
	if err := s.renameBelow(from, to, flags); err != nil {
		replaced.spare()
		s.dropUnused(to.fd, to.name)
		return err
	}
	if flags&unix.RENAME_EXCHANGE != 0 {
		if replaced.n != nil {
			s.table.moved(replaced.n, to.link(), from.link())
			replaced.n.noteAttributes()
		}
	} else {
		replaced.gone(to.link())
		s.vol.DropFullName(from.fd, from.name)
	}
	if moving != nil {
		s.table.moved(moving, from.link(), to.link())
		moving.noteAttributes()
	}
	return nil
}

// renameBelow renames the entry; a directory that looks empty but holds full names without entries is emptied on the way.
func (s *Server) renameBelow(from, to place, flags uint) error {
	err := s.store.Rename(from.fd, from.name.Stored, to.fd, to.name.Stored, flags)
	if err != unix.ENOTEMPTY {
		return err
	}
	fd, err := s.store.Open(to.fd, to.name.Stored, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return unix.ENOTEMPTY
	}
	defer func() { _ = s.store.Close(fd) }() // only read from
	entries, err := s.entryNames(fd)
	if err != nil {
		return err
	}
	if swept, err := s.vol.Sweep(fd, entries); err != nil || !swept {
		return unix.ENOTEMPTY
	}
	return s.store.Rename(from.fd, from.name.Stored, to.fd, to.name.Stored, flags)
}

// twoPlaces prepares a call on two names, with both directories locked in the order that table prescribes. done of the first
// place lets go of both.
func (s *Server) twoPlaces(id1 uint64, name1 string, id2 uint64, name2 string) (a, b place, err error) {
	if a, err = s.unlocked(id1, name1); err != nil {
		return a, b, err
	}
	if b, err = s.unlocked(id2, name2); err != nil {
		a.done()
		return a, b, err
	}
	releaseA, releaseB := a.done, b.done
	first, second := &a.dir.dir.mu, &b.dir.dir.mu
	if a.dir == b.dir {
		first.Lock()
		a.done = func() { first.Unlock(); releaseA(); releaseB() }
		return a, b, nil
	}
	if a.dir.id > b.dir.id {
		first, second = second, first
	}
	first.Lock()
	second.Lock()
	a.done = func() { second.Unlock(); first.Unlock(); releaseA(); releaseB() }
	return a, b, nil
}
