package fs

import (
	"container/list"
	"fmt"
	"sync"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// directory is what an inode has in addition if it is a directory.
type directory struct {
	// mu guards the names in the directory: see the LOCK ORDER at table.
	mu sync.RWMutex

	// The descriptor below, for calls relative to the directory. Guarded by directoryCache.mu.
	fd   int // opened with O_PATH; -1 if it is not open
	used int // how many calls are using fd
	at   *list.Element

	acl aclState // whether new entries inherit an ACL
}

// directoryCache keeps descriptors of directories open, so that a call on an entry needs no path. It is bounded: the
// descriptors that nobody uses are closed, longest unused first.
type directoryCache struct {
	store *backing.Store
	limit int

	mu   sync.Mutex
	idle *list.List // of *directory with an open descriptor that nobody uses; guarded by mu
	open int        // guarded by mu
}

func newDirectoryCache(store *backing.Store, limit int) *directoryCache {
	return &directoryCache{store: store, limit: limit, idle: list.New()}
}

// take returns the descriptor of d if it is open, and counts one more use.
func (c *directoryCache) take(d *directory) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.fd < 0 {
		return -1, false
	}
	c.use(d)
	return d.fd, true
}

// use counts one more use. The caller holds mu.
func (c *directoryCache) use(d *directory) {
	if d.at != nil {
		c.idle.Remove(d.at)
		d.at = nil
	}
	d.used++
}

// put gives d the descriptor fd, in use once, unless somebody was faster; it returns the one to use.
func (c *directoryCache) put(d *directory, fd int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.fd >= 0 {
		c.close(fd)
		c.use(d)
		return d.fd
	}
	d.fd, d.used = fd, 1
	c.open++
	for c.open > c.limit && c.idle.Len() > 0 {
		c.drop(c.idle.Back().Value.(*directory))
	}
	return fd
}

// release ends one use.
func (c *directoryCache) release(d *directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.used--
	if d.used == 0 && d.fd >= 0 {
		d.at = c.idle.PushFront(d)
	}
}

// forget closes the descriptor of a directory that the kernel knows no more.
func (c *directoryCache) forget(d *directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.fd >= 0 && d.used == 0 {
		c.drop(d)
	}
}

// drop closes the descriptor of an idle directory. The caller holds mu.
func (c *directoryCache) drop(d *directory) {
	c.idle.Remove(d.at)
	c.close(d.fd)
	d.fd, d.at = -1, nil
	c.open--
}

// close closes a descriptor opened with O_PATH, which has nothing to report.
func (c *directoryCache) close(fd int) { _ = c.store.Close(fd) }

// acquire returns a descriptor of the directory n, for calls relative to it, valid until release is called.
// No directory lock may be held.
func (s *Server) acquire(n *inode) (fd int, release func(), err error) {
	if n.dir == nil {
		return -1, nil, unix.ENOTDIR
	}
	release = func() { s.dirs.release(n.dir) }
	if fd, ok := s.dirs.take(n.dir); ok {
		return fd, release, nil
	}
	fd, err = s.openDirectory(n, unix.O_PATH)
	if err != nil {
		return -1, nil, err
	}
	return s.dirs.put(n.dir, fd), release, nil
}

// openDirectory opens the directory n with the given flags and makes sure that it is the one that the kernel means.
func (s *Server) openDirectory(n *inode, flags int) (int, error) {
	if fd, ok := s.dirs.take(n.dir); ok {
		defer s.dirs.release(n.dir)
		return s.store.Open(fd, ".", flags|unix.O_DIRECTORY, 0)
	}
	dir, name, done, err := s.reachByName(n)
	if err != nil {
		return -1, err
	}
	defer done()
	fd, err := s.store.Open(dir, name, flags|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	if err := s.verify(fd, n); err != nil {
		_ = s.store.Close(fd)
		return -1, err
	}
	return fd, nil
}

// verify makes sure that fd leads to the inode n, and not to something that was put in its place behind the mount.
func (s *Server) verify(fd int, n *inode) error {
	var st unix.Stat_t
	if err := s.store.Stat(fd, &st); err != nil {
		return err
	}
	if keyOf(&st) != n.key {
		return fmt.Errorf("another file has taken its place: %w", unix.ESTALE)
	}
	return nil
}

// reachByName returns a directory descriptor and a name that lead to n, and keeps the name from being taken away until done
// is called. It fails with ESTALE if n has no name.
func (s *Server) reachByName(n *inode) (dir int, name string, done func(), err error) {
	for {
		at, ok := s.table.location(n)
		if !ok {
			return -1, "", nil, unix.ESTALE
		}
		dir, release, err := s.acquire(at.parent)
		if err != nil {
			return -1, "", nil, err
		}
		at.parent.dir.mu.RLock()
		if now, ok := s.table.location(n); ok && now == at {
			return dir, at.name, func() { at.parent.dir.mu.RUnlock(); release() }, nil
		}
		at.parent.dir.mu.RUnlock() // renamed meanwhile
		release()
	}
}

// reach returns a target for calls on the attributes of n, valid until done is called.
func (s *Server) reach(n *inode) (t backing.Target, done func(), err error) {
	if n.id == rootID {
		return backing.Target{FD: s.vol.Root(), Name: "."}, func() {}, nil
	}
	dir, name, done, err := s.reachByName(n)
	if err == nil {
		return backing.Target{FD: dir, Name: name}, done, nil
	}
	if err != unix.ESTALE {
		return backing.Target{}, nil, err
	}
	if f := n.file.Load(); f != nil && f.Retain() {
		return backing.Target{FD: f.FD()}, f.Release, nil
	}
	if pin := n.pin.Load(); pin > 0 {
		return backing.Target{FD: int(pin - 1)}, func() {}, nil
	}
	return backing.Target{}, nil, unix.ESTALE
}
