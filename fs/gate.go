package fs

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// gate is what every request passes that changes the ciphertext directory. Freeze closes it: requests under way are waited
// for, later ones wait until it is opened again, without a bound of their own and deaf to signals, as on a frozen ext4.
// Reading, and opening a file without O_TRUNC, do not pass it.
//
// LOCK ORDER: gate.mu → all locks of this package and of package volume. It is taken before anything else of a request is
// looked at, and once in a request: a second time would wait for a Freeze that waits for the first.
type gate struct {
	fuse.RawFileSystem // the Server, for what does not change anything

	s    *Server
	mu   sync.RWMutex // held shared by changes under way, exclusively while frozen
	held atomic.Int64 // requests that wait
}

// pass waits until changes are allowed; the result ends the change.
func (g *gate) pass() (leave func()) {
	if !g.mu.TryRLock() {
		g.held.Add(1)
		g.mu.RLock()
		g.held.Add(-1)
	}
	return g.mu.RUnlock
}

// SetAttr passes the gate.
func (g *gate) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer g.pass()()
	return g.s.SetAttr(cancel, in, out)
}

// Mknod passes the gate.
func (g *gate) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	defer g.pass()()
	return g.s.Mknod(cancel, in, name, out)
}

// Mkdir passes the gate.
func (g *gate) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	defer g.pass()()
	return g.s.Mkdir(cancel, in, name, out)
}

// Symlink passes the gate.
func (g *gate) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	defer g.pass()()
	return g.s.Symlink(cancel, in, target, name, out)
}

// Link passes the gate.
func (g *gate) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	defer g.pass()()
	return g.s.Link(cancel, in, name, out)
}

// Unlink passes the gate.
func (g *gate) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer g.pass()()
	return g.s.Unlink(cancel, in, name)
}

// Rmdir passes the gate.
func (g *gate) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	defer g.pass()()
	return g.s.Rmdir(cancel, in, name)
}

// Rename passes the gate.
func (g *gate) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	defer g.pass()()
	return g.s.Rename(cancel, in, oldName, newName)
}

// SetXAttr passes the gate.
func (g *gate) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	defer g.pass()()
	return g.s.SetXAttr(cancel, in, attr, data)
}

// RemoveXAttr passes the gate.
func (g *gate) RemoveXAttr(cancel <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	defer g.pass()()
	return g.s.RemoveXAttr(cancel, in, attr)
}

// Create passes the gate.
func (g *gate) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	defer g.pass()()
	return g.s.Create(cancel, in, name, out)
}

// Tmpfile passes the gate: the file may be given a name.
func (g *gate) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer g.pass()()
	return g.s.Tmpfile(cancel, in, out)
}

// Open passes the gate if it empties the file.
func (g *gate) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_TRUNC != 0 {
		defer g.pass()()
	}
	return g.s.Open(cancel, in, out)
}

// Write passes the gate.
func (g *gate) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer g.pass()()
	return g.s.Write(cancel, in, data)
}

// CopyFileRange passes the gate.
func (g *gate) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	defer g.pass()()
	return g.s.CopyFileRange(cancel, in)
}

// Fallocate passes the gate.
func (g *gate) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer g.pass()()
	return g.s.Fallocate(cancel, in)
}
