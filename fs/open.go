package fs

import (
	"context"
	"fmt"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fileEvents carries what a File reports to its inode.
type fileEvents struct {
	s    *Server
	n    *inode
	file *volume.File // set before the File is shared
}

// Sealed hides the ctime that sealing caused.
func (e *fileEvents) Sealed(before, after unix.Timespec) { e.s.table.hide(e.n, before, after) }

// Closed makes the next open start afresh.
func (e *fileEvents) Closed() {
	if e.n.file.CompareAndSwap(e.file, nil) {
		if n := e.s.table.closed(e.n); n != nil {
			e.s.discard(n)
		}
	}
}

// open returns the File of n with one more user, opening it if it is not open yet. Only one caller asks the key service
// for a file; the others wait for it, each no longer than its own request lives.
func (s *Server) open(cancel <-chan struct{}, n *inode, write bool) (*volume.File, error) {
	ctx := newRequest(cancel, s.opts.KeyWait)
	defer ctx.end()
	for {
		if f := n.file.Load(); f != nil && f.Retain() {
			if err := s.useFor(ctx, n, f, write); err != nil {
				f.Release()
				return nil, err
			}
			return f, nil
		}
		turn, mine := s.takeTurn(n)
		if mine {
			f, err := s.load(ctx, n, write)
			s.endTurn(n, turn)
			return f, err
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// useFor checks that a File that is open already may be used once more, and makes it writable if need be.
func (s *Server) useFor(ctx context.Context, n *inode, f *volume.File, write bool) error {
	if err := f.Err(); err != nil {
		return err
	}
	if err := s.mayOpen(f, write); err != nil {
		return err
	}
	if !write {
		return nil
	}
	return f.MakeWritable(ctx, func(fd int) (int, error) {
		if s.opts.NoAtime {
			return withoutAtime(unix.O_RDWR, func(flags int) (int, error) { return s.store.Reopen(fd, flags) })
		}
		return s.store.Reopen(fd, unix.O_RDWR)
	})
}

// mayOpen asks the file system below whether this process may open the file, which it was not asked yet because the file is
// open. With allow_other the kernel has asked, and root may always.
func (s *Server) mayOpen(f *volume.File, write bool) error {
	if s.opts.AllowOther || s.uid == 0 {
		return nil
	}
	mask := uint32(unix.R_OK)
	if write {
		mask |= unix.W_OK
	}
	return s.store.Access(backing.Target{FD: f.FD()}, mask)
}

// takeTurn makes the caller the one who opens n, or returns a channel that is closed when the one who does has finished.
func (s *Server) takeTurn(n *inode) (turn chan struct{}, mine bool) {
	s.opensMu.Lock()
	defer s.opensMu.Unlock()
	if turn, ok := s.opens[n]; ok {
		return turn, false
	}
	turn = make(chan struct{})
	s.opens[n] = turn
	return turn, true
}

func (s *Server) endTurn(n *inode, turn chan struct{}) {
	s.opensMu.Lock()
	delete(s.opens, n)
	s.opensMu.Unlock()
	close(turn)
}

// load opens the backing file of n and reads its header.
func (s *Server) load(ctx context.Context, n *inode, write bool) (*volume.File, error) {
	if f := n.file.Load(); f != nil && f.Retain() { // opened between the look and the turn
		if err := s.useFor(ctx, n, f, write); err != nil {
			f.Release()
			return nil, err
		}
		return f, nil
	}
	fd, err := s.openBacking(n, write)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := s.store.Stat(fd, &st); err != nil {
		_ = s.store.Close(fd)
		return nil, err
	}
	if keyOf(&st) != n.key {
		_ = s.store.Close(fd)
		return nil, fmt.Errorf("another file has taken its place: %w", unix.ESTALE)
	}
	ev := &fileEvents{s: s, n: n}
	f, err := s.vol.OpenFile(ctx, fd, st.Size, write, ev)
	if err != nil {
		_ = s.store.Close(fd) // nothing was written through it
		return nil, err
	}
	if !s.opts.NoAtime {
		// What is read from now on is read for an application.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0); err != nil {
			s.log.Warn("reading a file will not change its access time", "ciphertext", s.cipherPath(n), "error", err)
		}
	}
	ev.file = f
	n.file.Store(f)
	return f, nil
}

// openBacking opens the backing file of n. Reading through the descriptor does not move the access time if that can be had:
// an application has only opened the file when its header is read.
func (s *Server) openBacking(n *inode, write bool) (int, error) {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	t, done, err := s.reach(n)
	if err != nil {
		return -1, err
	}
	defer done()
	if t.Name == "" {
		return withoutAtime(flags, func(flags int) (int, error) { return s.store.Reopen(t.FD, flags) })
	}
	s.announce(n, t)
	return withoutAtime(flags|unix.O_NONBLOCK, func(flags int) (int, error) { return s.store.Open(t.FD, t.Name, flags, 0) })
}

// withoutAtime opens with O_NOATIME, or without if this process may not: it must own the file, or be root.
func withoutAtime(flags int, open func(flags int) (int, error)) (int, error) {
	fd, err := open(flags | unix.O_NOATIME)
	if err == unix.EPERM {
		return open(flags)
	}
	return fd, err
}

// announce tells the volume which file is opened, so that it can get the keys of those that follow.
func (s *Server) announce(n *inode, t backing.Target) {
	if at, ok := s.table.location(n); ok {
		s.vol.Opening(t.FD, at.parent.key.fileKey(), t.Name, n.key.fileKey())
	}
}

// regular returns the inode of a regular file.
func (s *Server) regular(id uint64) (*inode, fuse.Status) {
	n := s.table.get(id)
	switch {
	case n == nil:
		return nil, fuse.Status(unix.ESTALE)
	case n.kind != unix.S_IFREG:
		return nil, fuse.EINVAL
	}
	return n, fuse.OK
}

func wantsWrite(flags uint32) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0
}

// Open opens a regular file. What has gone wrong with its key or header is reported here, before anything is read.
func (s *Server) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s.opts.FastOpen {
		return errNoOpen
	}
	s.touch()
	n, status := s.regular(in.NodeId)
	if status != fuse.OK {
		return status
	}
	f, err := s.open(cancel, n, wantsWrite(in.Flags))
	if err != nil {
		return s.noteOpen(n, in, s.fail("open", n, err))
	}
	if status := s.noteOpen(n, in, fuse.OK); status != fuse.OK {
		f.Release()
		return status
	}
	if in.Flags&unix.O_TRUNC != 0 {
		if err := s.empty(n, f, in); err != nil {
			f.Release()
			return s.fail("truncate", n, err)
		}
	}
	s.counters.opens.Add(1)
	s.opened(out)
	return fuse.OK
}

// noteOpen records an open, or that one was refused.
func (s *Server) noteOpen(n *inode, in *fuse.OpenIn, status fuse.Status) fuse.Status {
	e := s.eventOn("open", n)
	e.Write = wantsWrite(in.Flags)
	return s.note(e, &in.Caller, status)
}

// empty does what O_TRUNC asks for. It clears set-id bits if the kernel says so in the flags of the open.
func (s *Server) empty(n *inode, f *volume.File, in *fuse.OpenIn) error {
	if !s.opts.WriteThrough {
		if err := f.KeepMtime(); err != nil {
			return err
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	s.dropCapabilities(n, f)
	if in.Mode&fuse.OPEN_KILL_SUIDGID == 0 {
		return nil
	}
	return s.killSetID(n, backing.Target{FD: f.FD()}, &in.Caller)
}

// opened fills in the answer of a successful open. There is no handle: state is kept by inode.
func (s *Server) opened(out *fuse.OpenOut) {
	s.openNow.Add(1)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
}

// Release ends one open. The kernel has written back what it had to by then.
func (s *Server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	s.touch()
	if n := s.table.get(in.NodeId); n != nil {
		if f := n.file.Load(); f != nil {
			f.Release()
			s.openNow.Add(-1) // after it: who sees that nothing is open may rely on everything waiting for its seal
		}
	}
}

// Create makes a regular file and opens it.
func (s *Server) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if s.opts.FastOpen {
		return errNoOpen
	}
	if status := s.mayAct(); status != fuse.OK {
		return status
	}
	e := s.eventAt("create", in.NodeId, name)
	n, status := s.create(cancel, in, name, out)
	if status == fuse.OK {
		s.counters.creates.Add(1)
		e = e.describe(n.file.Load())
	}
	e.Write = true
	return s.note(e, &in.Caller, status)
}

func (s *Server) create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) (*inode, fuse.Status) {
	key, status := s.newKey(cancel, in.NodeId)
	if status != fuse.OK {
		return nil, status
	}
	defer key.discard()
	p, err := s.at(in.NodeId, name, false)
	if err != nil {
		return nil, statusOf(err)
	}
	defer p.done()
	mode, err := s.modeFor(p, in.Mode, in.Umask)
	if err != nil {
		return nil, statusOf(err)
	}
	if err := s.storeFullName(p); err != nil {
		return nil, statusOf(err)
	}
	fd, err := s.store.Open(p.fd, p.name.Stored, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode)
	if err == unix.EEXIST && in.Flags&unix.O_EXCL == 0 {
		// Somebody put it there behind the mount. The kernel looks again after ESTALE.
		return nil, fuse.Status(unix.ESTALE)
	}
	if err != nil {
		s.dropUnused(p.fd, p.name)
		return nil, statusOf(err)
	}
	n, err := s.begin(fd, key, &in.Caller, p, mode, out, func(st *unix.Stat_t) *inode {
		return s.table.adopt(p.link(), st)
	})
	if err == nil {
		return n, fuse.OK
	}
	if uerr := s.store.Unlink(p.fd, p.name.Stored); uerr != nil {
		s.log.Warn("cannot remove a new file that could not be opened", "name", p.name.Stored, "error", uerr)
	}
	s.dropUnused(p.fd, p.name)
	return n, s.fail("create", n, err)
}

// Tmpfile makes a regular file without a name.
func (s *Server) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	if s.opts.FastOpen {
		return errNoOpen
	}
	key, status := s.newKey(cancel, in.NodeId)
	if status != fuse.OK {
		return status
	}
	defer key.discard()
	p, err := s.at(in.NodeId, "tmpfile", false)
	if err != nil {
		return statusOf(err)
	}
	defer p.done()
	mode, err := s.modeFor(p, in.Mode, in.Umask)
	if err != nil {
		return statusOf(err)
	}
	flags := unix.O_TMPFILE | unix.O_RDWR | int(in.Flags&unix.O_EXCL)
	fd, err := s.store.Open(p.fd, ".", flags, mode)
	if err != nil {
		return statusOf(err)
	}
	n, err := s.begin(fd, key, &in.Caller, p, mode, out, s.table.adoptNameless)
	if err != nil {
		return s.fail("create", n, err)
	}
	n.file.Load().Unlinked()
	return fuse.OK
}

// newKey is the key of a file that is being made. It is had before the directory is locked: waiting for the key service must
// not keep others out of the directory.
type newKey struct {
	fresh keyring.Fresh
	taken bool
}

// newKey takes a key for a file in the directory with the given node ID.
func (s *Server) newKey(cancel <-chan struct{}, dir uint64) (*newKey, fuse.Status) {
	n := s.table.get(dir)
	if n == nil {
		return nil, fuse.Status(unix.ESTALE)
	}
	if err := s.vol.WaitForRoom(interruptible{context.Background(), cancel}); err != nil {
		return nil, statusOf(err)
	}
	ctx := newRequest(cancel, s.opts.KeyWait)
	defer ctx.end()
	fresh, err := s.vol.NewKey(ctx)
	if err != nil {
		return nil, s.fail("create", n, err)
	}
	return &newKey{fresh: fresh}, fuse.OK
}

// take hands the key over.
func (k *newKey) take() keyring.Fresh {
	k.taken = true
	return k.fresh
}

// discard wipes a key that nobody took.
func (k *newKey) discard() {
	if !k.taken {
		k.fresh.Key.Wipe()
	}
}

// begin turns the descriptor of a new backing file into an open file. It takes fd over in any case. On an error the inode
// that it returns is only for messages.
func (s *Server) begin(fd int, key *newKey, caller *fuse.Caller, p place, mode uint32, out *fuse.CreateOut,
	adopt func(*unix.Stat_t) *inode) (*inode, error) {
	var st unix.Stat_t
	ev := &fileEvents{s: s}
	f, err := s.vol.NewFile(fd, key.take(), ev)
	if err != nil {
		_ = s.store.Close(fd) // nothing was written through it
		return p.dir, err
	}
	ev.file = f
	err = s.giveTo(caller, p, backing.Target{FD: fd}, mode)
	if err == nil {
		err = s.store.Stat(fd, &st)
	}
	if err != nil {
		ev.n = p.dir // whose file is never this one
		f.Release()
		return p.dir, err
	}
	n := adopt(&st)
	ev.n = n
	n.file.Store(f)
	seen, _ := n.absent.look(capabilityAttr)
	n.absent.note(seen, capabilityAttr) // nobody can have given it any yet, and the kernel asks before it writes
	s.fillEntry(n, &st, &out.EntryOut)
	s.opened(&out.OpenOut)
	return n, nil
}
