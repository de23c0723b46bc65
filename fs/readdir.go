package fs

import (
	"errors"
	"sync"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// direntBytes is how much of a directory is read at once.
const direntBytes = 64 << 10

// handles are the open directories, by the number that the kernel knows them by.
type handles struct {
	mu   sync.Mutex
	open map[uint64]*dirHandle // guarded by mu
	last uint64                // guarded by mu
}

func (h *handles) add(d *dirHandle) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[uint64]*dirHandle{}
	}
	h.last++
	h.open[h.last] = d
	return h.last
}

func (h *handles) get(id uint64) *dirHandle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open[id]
}

func (h *handles) remove(id uint64) *dirHandle {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.open[id]
	delete(h.open, id)
	return d
}

func (h *handles) removeAll() map[uint64]*dirHandle {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.open
	h.open = nil
	return all
}

// dirHandle is an open directory. Positions are those of the file system below, so they stay good for as long as there.
type dirHandle struct {
	n  *inode
	fd int

	mu   sync.Mutex
	buf  []byte // guarded by mu
	rest []byte // records of buf that were not given out; guarded by mu
	pos  int64  // position of the first of them; guarded by mu
}

// OpenDir opens a directory for reading.
func (s *Server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.touch()
	n := s.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if n.dir == nil {
		return fuse.ENOTDIR
	}
	fd, err := s.openToList(n)
	if err != nil {
		return statusOf(err)
	}
	out.Fh = s.handles.add(&dirHandle{n: n, fd: fd})
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	s.openNow.Add(1)
	return fuse.OK
}

// openToList opens a directory whose entries are going to be read.
func (s *Server) openToList(n *inode) (int, error) {
	if !s.opts.NoAtime && !s.opts.NoDirAtime {
		return s.openDirectory(n, unix.O_RDONLY)
	}
	return withoutAtime(unix.O_RDONLY, func(flags int) (int, error) { return s.openDirectory(n, flags) })
}

// ReleaseDir closes a directory.
func (s *Server) ReleaseDir(in *fuse.ReleaseIn) {
	if d := s.handles.remove(in.Fh); d != nil {
		s.openNow.Add(-1)
		_ = s.store.Close(d.fd) // only read from
	}
}

// FsyncDir makes the names in a directory durable.
func (s *Server) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	s.touch()
	d := s.handles.get(in.Fh)
	if d == nil {
		return fuse.EBADF
	}
	if err := s.vol.SyncNewFiles(); err != nil {
		return statusOf(err)
	}
	return statusOf(s.store.Sync(d.fd, in.FsyncFlags&syncDataOnly != 0))
}

// ReadDir lists names.
func (s *Server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(in, func(_ *dirHandle, _ []byte, e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists names with attributes. The kernel asks for it only where programs want attributes.
func (s *Server) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(in, func(d *dirHandle, stored []byte, e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Name != "." && e.Name != ".." {
			s.lookUp(d, string(stored), entry)
		}
		return true
	})
}

// lookUp fills in the attributes of an entry. One that has gone meanwhile is listed without.
func (s *Server) lookUp(d *dirHandle, stored string, out *fuse.EntryOut) {
	d.n.dir.mu.RLock()
	defer d.n.dir.mu.RUnlock()
	var st unix.Stat_t
	if err := s.store.StatAt(d.fd, stored, &st); err != nil {
		return
	}
	n := s.table.adopt(link{parent: d.n, name: stored}, &st)
	if err := s.settle(n, backing.Target{FD: d.fd, Name: stored}, &st); err != nil {
		s.Forget(n.id, 1)
		return
	}
	s.fillEntry(n, &st, out)
}

// list gives the entries from the position that is asked for to add, until add says that the answer is full.
func (s *Server) list(in *fuse.ReadIn, add func(d *dirHandle, stored []byte, e fuse.DirEntry) bool) fuse.Status {
	s.touch()
	d := s.handles.get(in.Fh)
	if d == nil {
		return fuse.EBADF
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.seek(s, int64(in.Offset)); err != nil {
		return statusOf(err)
	}
	for {
		if len(d.rest) == 0 {
			if err := d.fill(s); err != nil {
				return statusOf(err)
			}
			if len(d.rest) == 0 {
				return fuse.OK
			}
		}
		var e fuse.DirEntry
		size := e.Parse(d.rest)
		stored := e.Name
		if s.showEntry(d, &e) && !add(d, []byte(stored), e) {
			return fuse.OK
		}
		d.rest, d.pos = d.rest[size:], int64(e.Off)
	}
}

// seek moves to a position. Reading on from where the last call ended costs nothing.
func (d *dirHandle) seek(s *Server, pos int64) error {
	if pos == d.pos {
		return nil
	}
	if _, err := s.store.Seek(d.fd, pos, unix.SEEK_SET); err != nil {
		return err
	}
	d.rest, d.pos = nil, pos
	return nil
}

func (d *dirHandle) fill(s *Server) error {
	if d.buf == nil {
		d.buf = make([]byte, direntBytes)
	}
	n, err := s.store.ReadDir(d.fd, d.buf)
	if err != nil {
		return err
	}
	d.rest = d.buf[:n]
	return nil
}

// showEntry turns a stored name into the plaintext one, and reports whether the entry is to be shown at all.
func (s *Server) showEntry(d *dirHandle, e *fuse.DirEntry) bool {
	if e.Name == "." || e.Name == ".." {
		return true
	}
	name, err := s.vol.DecodeName(d.fd, e.Name)
	switch {
	case err == nil:
		e.Name = name
		e.Ino = s.shownIno(inodeKey{dev: s.rootDev, ino: e.Ino})
		return true
	case errors.Is(err, volume.ErrHidden):
	case errors.Is(err, crypto.ErrForeignName):
		if s.foreign.first(fault{key: d.n.key, name: e.Name}) {
			s.log.Warn("a file that envfs did not put there is left alone and not shown",
				"directory", s.cipherPath(d.n), "name", e.Name)
		}
	default:
		s.log.Warn("cannot decode a name", "directory", s.cipherPath(d.n), "name", e.Name, "error", err)
	}
	return false
}

// entryNames returns the stored names in the directory fd, which was just opened.
func (s *Server) entryNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, direntBytes)
	for {
		n, err := s.store.ReadDir(fd, buf)
		if err != nil || n == 0 {
			return names, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			var e fuse.DirEntry
			rest = rest[e.Parse(rest):]
			names = append(names, e.Name)
		}
	}
}
