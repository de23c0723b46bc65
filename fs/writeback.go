package fs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// errHidden: the way from outside to the files of this mount is blocked.
var errHidden = errors.New("another file system is mounted over the mountpoint")

// writeBack makes the kernel write back the pages that it holds of open files. When a file is closed, the kernel does so by
// itself. FUSE has no request for it, and syncfs(2) does not wait; so this is done from outside, through the mount, as any
// program could, while other goroutines serve what comes of it.
func (s *Server) writeBack(ctx context.Context) error {
	root, err := unix.Open(s.mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(root) }() // only looked at
	var st unix.Stat_t
	var below unix.Statfs_t
	if err := errors.Join(unix.Fstat(root, &st), unix.Fstatfs(root, &below)); err != nil {
		return err
	}
	if below.Type != unix.FUSE_SUPER_MAGIC || st.Ino != s.shownIno(s.root.key) {
		return errHidden
	}
	if err := unix.Syncfs(root); err != nil { // starts with all of them at once
		return err
	}
	for _, n := range s.table.all() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f := n.file.Load(); f == nil || !f.Writable() {
			continue
		}
		if err := s.writeBackFile(root, n); err != nil {
			return fmt.Errorf("%s: %w", s.cipherPath(n), err)
		}
	}
	return nil
}

// writeBackFile waits until the pages of n are written back. One without a name is in no snapshot.
func (s *Server) writeBackFile(root int, n *inode) error {
	for range 3 { // it may be renamed meanwhile
		if _, named := s.table.location(n); !named {
			return nil
		}
		fd, err := s.openFromOutside(root, n)
		if err == nil {
			return errors.Join(unix.Fsync(fd), unix.Close(fd))
		}
		if err != unix.ENOENT && err != unix.ESTALE {
			break
		}
	}
	// It cannot be opened, for want of rights, say: then the kernel is told to drop its pages, before which it writes them.
	return s.dev.InvalidateInode(n.id, 0, 0)
}

// openFromOutside opens n by its path, whatever is mounted or linked on the way.
func (s *Server) openFromOutside(root int, n *inode) (int, error) {
	fd, err := unix.Openat2(root, "."+s.plainPath(n), &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if st.Ino != s.shownIno(n.key) {
		return -1, errors.Join(unix.ESTALE, unix.Close(fd))
	}
	return fd, nil
}
