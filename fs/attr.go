package fs

import (
	"github.com/envfs/envfs/internal/backing"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fillAttr translates the attributes of a backing file into those of the plaintext file.
func (s *Server) fillAttr(n *inode, st *unix.Stat_t, out *fuse.Attr) {
	ctime := st.Ctim
	if n.kind == unix.S_IFREG {
		ctime = s.table.shownCtime(n, ctime)
	}
	*out = fuse.Attr{
		Ino: s.shownIno(n.key), Size: uint64(s.plainSize(n, st)), Blocks: uint64(st.Blocks),
		Atime: uint64(st.Atim.Sec), Mtime: uint64(st.Mtim.Sec), Ctime: uint64(ctime.Sec),
		Atimensec: uint32(st.Atim.Nsec), Mtimensec: uint32(st.Mtim.Nsec), Ctimensec: uint32(ctime.Nsec),
		Mode: st.Mode, Nlink: uint32(st.Nlink), Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
	}
}

// shownIno keeps inode numbers as they are below. Those of further file systems mounted inside the ciphertext directory are
// moved out of the way of the first one's.
func (s *Server) shownIno(k inodeKey) uint64 {
	if k.dev == s.rootDev {
		return k.ino
	}
	return k.ino ^ (k.dev+1)<<40
}

func (s *Server) plainSize(n *inode, st *unix.Stat_t) int64 {
	switch n.kind {
	case unix.S_IFREG:
		if f := n.file.Load(); f != nil {
			return f.Size()
		}
		return s.vol.PlainSize(st.Size)
	case unix.S_IFLNK:
		return s.vol.TargetSize(st.Size)
	}
	return st.Size
}

func (s *Server) fillEntry(n *inode, st *unix.Stat_t, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.id, n.generation
	out.SetEntryTimeout(cacheTime)
	out.SetAttrTimeout(cacheTime)
	s.fillAttr(n, st, &out.Attr)
}

// GetAttr needs no key.
func (s *Server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.touch()
	n := s.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	t, done, err := s.reach(n)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	defer holdTimes(n)()
	return s.answerAttr(n, t, out)
}

// holdTimes keeps sealing out until the result is called: in the middle of it the backing file shows times that no
// application may see.
func holdTimes(n *inode) (release func()) {
	if f := n.file.Load(); f != nil {
		return f.HoldTimes()
	}
	return func() {}
}

// settle reads the attributes of an inode anew if they may have been read in the middle of sealing.
func (s *Server) settle(n *inode, t backing.Target, st *unix.Stat_t) error {
	if n.file.Load() == nil {
		return nil
	}
	defer holdTimes(n)()
	return s.store.StatTarget(t, st)
}

// answerAttr fills in the attributes. The caller holds the times.
func (s *Server) answerAttr(n *inode, t backing.Target, out *fuse.AttrOut) fuse.Status {
	var st unix.Stat_t
	if err := s.store.StatTarget(t, &st); err != nil {
		return statusOf(err)
	}
	if keyOf(&st) != n.key {
		return fuse.Status(unix.ESTALE)
	}
	out.SetTimeout(cacheTime)
	s.fillAttr(n, &st, &out.Attr)
	return fuse.OK
}

// SetAttr changes size, mode, owner and times, in this order: a change of size or owner may clear set-id bits, and times
// that were asked for must not be touched by what comes after.
func (s *Server) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.touch()
	n := s.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	if size, ok := in.GetSize(); ok {
		if err := s.truncate(cancel, n, int64(size)); err != nil {
			return s.fail("truncate", n, err)
		}
	}
	t, done, err := s.reach(n)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	defer holdTimes(n)()
	if f := n.file.Load(); f != nil {
		if in.Valid&fuse.FATTR_MTIME != 0 {
			f.MtimeSet()
		}
	}
	if err := s.setAttr(n, t, in); err != nil {
		return statusOf(err)
	}
	return s.answerAttr(n, t, out)
}

func (s *Server) setAttr(n *inode, t backing.Target, in *fuse.SetAttrIn) error {
	if in.Valid&^attrsOfWriting != 0 {
		defer n.noteAttributes()
	}
	uid, gid := -1, -1
	if u, ok := in.GetUID(); ok {
		uid = int(u)
	}
	if g, ok := in.GetGID(); ok {
		gid = int(g)
	}
	if uid != -1 || gid != -1 {
		if err := s.store.Chown(t, uid, gid); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := s.store.Chmod(t, mode); err != nil {
			return err
		}
	} else if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || announcesChange(in) {
		if err := s.killSetID(n, t, &in.Caller); err != nil {
			return err
		}
	}
	return s.setTimes(t, in)
}

// attrsOfWriting are the attributes that change with the content: the size, and the modification time, which the kernel hands
// over before each fsync(2) of what it has cached. What makes the content durable covers them.
const attrsOfWriting = fuse.FATTR_SIZE | fuse.FATTR_MTIME | fuse.FATTR_CTIME | fuse.FATTR_FH | fuse.FATTR_LOCKOWNER |
	fuse.FATTR_KILL_SUIDGID

// noteAttributes must be called after attributes or names of n were changed: the next fsync(2) of it has to cover them.
func (n *inode) noteAttributes() {
	if f := n.file.Load(); f != nil {
		f.NoteAttributes()
	}
}

// announcesChange recognises the request without any attribute that the kernel sends before somebody changes the content of a
// file which has set-id bits or capabilities. It is how fallocate(2) and copy_file_range(2) by somebody without privileges
// are told from those by root, who keeps the bits.
func announcesChange(in *fuse.SetAttrIn) bool {
	return in.Valid&^(fuse.FATTR_FH|fuse.FATTR_LOCKOWNER) == 0 && in.Caller.Uid != 0
}

func (s *Server) setTimes(t backing.Target, in *fuse.SetAttrIn) error {
	atime := timeOf(in, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
	mtime := timeOf(in, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	if atime.Nsec == unix.UTIME_OMIT && mtime.Nsec == unix.UTIME_OMIT {
		return nil
	}
	return s.store.SetTimes(t, atime, mtime)
}

func timeOf(in *fuse.SetAttrIn, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case in.Valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case in.Valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
}

// killSetID clears the set-user-ID bit, and the set-group-ID bit where it means what it says (on a file that the group may
// execute) or the caller is not of that group, as the kernel does after a write by somebody without privileges.
func (s *Server) killSetID(n *inode, t backing.Target, caller *fuse.Caller) error {
	var st unix.Stat_t
	if err := s.store.StatTarget(t, &st); err != nil {
		return err
	}
	mode := st.Mode &^ unix.S_ISUID
	if mode&unix.S_IXGRP != 0 || (caller.Uid != 0 && st.Gid != caller.Gid) {
		mode &^= unix.S_ISGID
	}
	if mode == st.Mode || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	defer n.noteAttributes()
	return s.store.Chmod(t, mode&^unix.S_IFMT)
}

// Access answers access(2) on a private mount, where the kernel does not check permissions: what this process may do.
func (s *Server) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	n := s.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	t, done, err := s.reach(n)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	return statusOf(s.store.Access(t, in.Mask))
}

// Statx answers what GetAttr cannot: the time of birth.
func (s *Server) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n := s.table.get(in.NodeId)
	if n == nil {
		return fuse.Status(unix.ESTALE)
	}
	t, done, err := s.reach(n)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	defer holdTimes(n)()
	var stx unix.Statx_t
	if err := s.store.Statx(t, int(in.SxFlags), int(in.SxMask), &stx); err != nil {
		return statusOf(err)
	}
	out.SetTimeout(cacheTime)
	s.fillStatx(n, &stx, &out.Statx)
	return fuse.OK
}

func (s *Server) fillStatx(n *inode, stx *unix.Statx_t, out *fuse.Statx) {
	st := unix.Stat_t{Size: int64(stx.Size)}
	ctime := unix.Timespec{Sec: stx.Ctime.Sec, Nsec: int64(stx.Ctime.Nsec)}
	if n.kind == unix.S_IFREG {
		ctime = s.table.shownCtime(n, ctime)
	}
	out.Mask, out.Blksize, out.Nlink = stx.Mask, stx.Blksize, stx.Nlink
	out.Attributes, out.AttributesMask = stx.Attributes, stx.Attributes_mask
	out.Uid, out.Gid, out.Mode = stx.Uid, stx.Gid, stx.Mode
	out.Ino, out.Size, out.Blocks = s.shownIno(n.key), uint64(s.plainSize(n, &st)), stx.Blocks
	out.Atime = fuse.SxTime{Sec: uint64(stx.Atime.Sec), Nsec: stx.Atime.Nsec}
	out.Btime = fuse.SxTime{Sec: uint64(stx.Btime.Sec), Nsec: stx.Btime.Nsec}
	out.Ctime = fuse.SxTime{Sec: uint64(ctime.Sec), Nsec: uint32(ctime.Nsec)}
	out.Mtime = fuse.SxTime{Sec: uint64(stx.Mtime.Sec), Nsec: stx.Mtime.Nsec}
	out.RdevMajor, out.RdevMinor = stx.Rdev_major, stx.Rdev_minor
}
