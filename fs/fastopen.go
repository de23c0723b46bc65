package fs

import (
	"sync"
	"time"

	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// With Options.FastOpen the kernel asks for no open and tells of no close: a file is opened when it is first read or written,
// and nothing says when it is not needed any more. So those used of late are held open for a while. Each request holds the
// file that it works on besides, so that one can be let go of at any time.

const (
	// heldMost bounds the files that are held open, each with a descriptor.
	heldMost = 256
	// heldFor is how long a file is held after its last use, at least; twice that at most.
	heldFor = 2 * time.Second
)

// held is the files held open.
//
// LOCK ORDER: mu before the locks of package volume.
type held struct {
	mu    sync.Mutex
	files map[*inode]*heldFile // guarded by mu
	timer *time.Timer          // runs while there are files; guarded by mu
	ended bool                 // guarded by mu
}

type heldFile struct {
	file *volume.File
	used bool // since the last sweep
}

// use holds f, the file of n, which the caller has in use, or notes that it was used again.
func (h *held) use(n *inode, f *volume.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.files[n]; e != nil && e.file == f {
		e.used = true
		return
	}
	if h.ended || len(h.files) >= heldMost || !f.Retain() {
		return
	}
	h.release(n)
	if h.files == nil {
		h.files = map[*inode]*heldFile{}
	}
	h.files[n] = &heldFile{file: f, used: true}
	if h.timer == nil {
		h.timer = time.AfterFunc(heldFor, h.sweep)
	}
}

// sweep lets go of what was not used since the last sweep.
func (h *held) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, e := range h.files {
		if !e.used {
			h.release(n)
		}
		e.used = false
	}
	h.timer = nil
	if len(h.files) > 0 && !h.ended {
		h.timer = time.AfterFunc(heldFor, h.sweep)
	}
}

// release lets go of the file of n, if it is held. The caller holds mu.
func (h *held) release(n *inode) {
	if e := h.files[n]; e != nil {
		delete(h.files, n)
		e.file.Release()
	}
}

// forget lets go of the file of an inode that the kernel knows no more.
func (h *held) forget(n *inode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(n)
}

// end lets go of all files, for good.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for n := range h.files {
		h.release(n)
	}
}

// usedFile returns the File of a request, valid until done is called.
func (s *Server) usedFile(cancel <-chan struct{}, id uint64, write bool) (n *inode, f *volume.File, done func(), status fuse.Status) {
	if !s.opts.FastOpen {
		n, f, status = s.openFile(id)
		return n, f, func() {}, status
	}
	s.touch()
	if n, status = s.regular(id); status != fuse.OK {
		return nil, nil, nil, status
	}
	f, err := s.open(cancel, n, write)
	if err != nil {
		return nil, nil, nil, s.fail("open", n, err)
	}
	s.held.use(n, f)
	return n, f, f.Release, fuse.OK
}

// errNoOpen makes the kernel do without opens from now on.
const errNoOpen = fuse.Status(unix.ENOSYS)
