package fs

import (
	"errors"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// place is a name in a directory, ready for a call below: the directory's descriptor is held open, and its lock is held,
// shared or exclusively, until done is called.
type place struct {
	dir  *inode
	fd   int
	name volume.Name
	done func()
}

func (p place) link() link { return link{parent: p.dir, name: p.name.Stored} }

// target is the entry, for calls on its attributes.
func (p place) target() backing.Target { return backing.Target{FD: p.fd, Name: p.name.Stored} }

// at prepares a call on name in the directory with the given node ID. exclusive is for calls that take a name away.
func (s *Server) at(id uint64, name string, exclusive bool) (place, error) {
	p, err := s.unlocked(id, name)
	if err != nil {
		return place{}, err
	}
	mu, release := &p.dir.dir.mu, p.done
	if exclusive {
		mu.Lock()
		p.done = func() { mu.Unlock(); release() }
	} else {
		mu.RLock()
		p.done = func() { mu.RUnlock(); release() }
	}
	return p, nil
}

// unlocked is at without the lock: done only lets go of the descriptor.
func (s *Server) unlocked(id uint64, name string) (place, error) {
	s.touch()
	dir := s.table.get(id)
	if dir == nil {
		return place{}, unix.ESTALE
	}
	stored, err := s.vol.EncodeName(name)
	if err != nil {
		return place{}, err
	}
	fd, release, err := s.acquire(dir)
	if err != nil {
		return place{}, err
	}
	if s.vol.Nameless(fd, name) {
		stored = volume.Name{Stored: name}
	}
	return place{dir: dir, fd: fd, name: stored, done: release}, nil
}

// Lookup finds a name. That there is none is an answer which the kernel may remember, too.
func (s *Server) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	p, err := s.at(in.NodeId, name, false)
	if errors.Is(err, volume.ErrReservedName) {
		return fuse.ENOENT
	}
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	var st unix.Stat_t
	err = s.store.StatAt(p.fd, p.name.Stored, &st)
	if err == unix.ENOENT {
		out.NodeId = 0
		out.SetEntryTimeout(cacheTime)
		return fuse.OK
	}
	if err != nil {
		return statusOf(err)
	}
	n := s.table.adopt(p.link(), &st)
	if err := s.settle(n, p.target(), &st); err != nil {
		s.Forget(n.id, 1)
		return statusOf(err)
	}
	s.fillEntry(n, &st, out)
	return fuse.OK
}

// Readlink returns the target of a symbolic link.
func (s *Server) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	s.touch()
	n := s.table.get(in.NodeId)
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	t, done, err := s.reach(n)
	if err != nil {
		return nil, statusOf(err)
	}
	defer done()
	stored, err := s.store.Readlink(t.FD, t.Name)
	if err != nil {
		return nil, statusOf(err)
	}
	target, err := s.vol.DecodeTarget(stored)
	if err != nil {
		return nil, s.fail("readlink", n, err)
	}
	return []byte(target), fuse.OK
}
