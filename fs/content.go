package fs

import (
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// openFile returns the open File of a request that names a handle.
func (s *Server) openFile(id uint64) (*inode, *volume.File, fuse.Status) {
	s.touch()
	n, status := s.regular(id)
	if status != fuse.OK {
		return nil, nil, status
	}
	f := n.file.Load()
	if f == nil {
		return nil, nil, fuse.EBADF
	}
	return n, f, fuse.OK
}

// Read decrypts straight into the reply.
func (s *Server) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, f, done, status := s.usedFile(cancel, in.NodeId, false)
	if status != fuse.OK {
		return nil, status
	}
	defer done()
	got, err := f.ReadAt(buf, int64(in.Offset))
	if err != nil {
		// Also if a part could be read: the kernel takes a short answer for the end of the file and fills the pages behind it
		// with zeros. After an error it asks for each page alone.
		return nil, s.fail("read", n, err)
	}
	s.counters.reads.Add(1)
	s.counters.bytesRead.Add(uint64(got))
	return inPlace(buf[:got]), fuse.OK
}

// inPlace is what a READ has put where the answer takes it from, so that it is not copied.
type inPlace []byte

// Bytes returns the content.
func (p inPlace) Bytes([]byte) ([]byte, fuse.Status) { return p, fuse.OK }

// Size returns the length of the content in bytes.
func (p inPlace) Size() int { return len(p) }

// Done has nothing to let go of.
func (p inPlace) Done() {}

// Write encrypts straight from the request.
func (s *Server) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, f, release, status := s.usedFile(cancel, in.NodeId, true)
	if status != fuse.OK {
		return 0, status
	}
	defer release()
	if err := s.beforeWrite(n, f, in.WriteFlags&fuse.WRITE_CACHE != 0); err != nil {
		return 0, statusOf(err)
	}
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := s.killSetID(n, backing.Target{FD: f.FD()}, &in.Caller); err != nil {
			return 0, statusOf(err)
		}
	}
	done, err := f.WriteAt(data, int64(in.Offset))
	if err != nil {
		return 0, s.fail("write", n, err)
	}
	s.counters.writes.Add(1)
	s.counters.bytesWritten.Add(uint64(done))
	return uint32(done), fuse.OK
}

// beforeWrite does what has to happen before content is written. What comes from the kernel's cache was written earlier: the
// kernel has dropped the capabilities then, and new ones may have been given since; and the kernel knows the time of it. Where
// there are no extended attributes the kernel drops none, and what a file has of them comes from another mount.
func (s *Server) beforeWrite(n *inode, f *volume.File, fromCache bool) error {
	if !fromCache || s.opts.DisableXattr {
		s.dropCapabilities(n, f)
	}
	if !fromCache {
		return nil
	}
	if s.opts.WriteThrough {
		return nil
	}
	return f.KeepMtime()
}

// dropCapabilities removes file capabilities (security.capability) before content changes, as the kernel would. It is a
// question to the file system below only once in the time that a file is open.
func (s *Server) dropCapabilities(n *inode, f *volume.File) {
	if !f.TakeFirstWrite() {
		return
	}
	stored, _, err := s.vol.AttrName(capabilityAttr, n.special())
	if err != nil {
		return
	}
	err = s.store.Removexattr(backing.Target{FD: f.FD()}, stored)
	if err == nil {
		f.NoteAttributes()
	}
	if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		s.log.Warn("cannot remove the capabilities of a file that is being written", "ciphertext", s.cipherPath(n), "error", err)
	}
}

// truncate sets the size of a file that may not be open.
func (s *Server) truncate(cancel <-chan struct{}, n *inode, size int64) error {
	if n.kind != unix.S_IFREG {
		return unix.EINVAL
	}
	f, err := s.open(cancel, n, true)
	if err != nil {
		return err
	}
	defer f.Release()
	s.dropCapabilities(n, f)
	return f.Truncate(size)
}

// Flush is not needed: the kernel writes back at close by itself, and reports what went wrong.
func (s *Server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// syncDataOnly is FUSE_FSYNC_FDATASYNC: attributes that are not needed to read the data back may wait.
const syncDataOnly = 1

// Fsync makes a file durable.
func (s *Server) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, f, done, status := s.usedFile(cancel, in.NodeId, false)
	if status != fuse.OK {
		return status
	}
	defer done()
	s.counters.syncs.Add(1)
	if err := f.Sync(in.FsyncFlags&syncDataOnly != 0); err != nil {
		return s.fail("fsync", n, err)
	}
	return fuse.OK
}

// Fallocate allocates, punches holes and writes zeros, as far as the file system below can.
func (s *Server) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n, f, done, status := s.usedFile(cancel, in.NodeId, true)
	if status != fuse.OK {
		return status
	}
	defer done()
	s.dropCapabilities(n, f)
	off, length := int64(in.Offset), int64(in.Length)
	keep := in.Mode&unix.FALLOC_FL_KEEP_SIZE != 0
	var err error
	switch in.Mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case 0:
		err = f.Allocate(off, length, keep)
	case unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE:
		err = f.ZeroRange(off, length, keep)
	default:
		err = unix.EOPNOTSUPP
	}
	if err != nil {
		return s.fail("fallocate", n, err)
	}
	return fuse.OK
}

// Lseek finds data and holes. The kernel does the other kinds by itself.
func (s *Server) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	n, f, done, status := s.usedFile(cancel, in.NodeId, false)
	if status != fuse.OK {
		return status
	}
	defer done()
	if in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	if f.Writable() {
		// The kernel does not write back what is in its cache before it asks, and what is only there would look like a hole.
		if err := s.dev.InvalidateInode(n.id, int64(in.Offset), 0); err != nil {
			return statusOf(err)
		}
	}
	at, err := f.Seek(int64(in.Offset), int(in.Whence))
	if err != nil {
		return s.fail("lseek", n, err)
	}
	out.Offset = uint64(at)
	return fuse.OK
}

// copyChunk is how much CopyFileRange moves between two looks at whether the caller still waits.
const copyChunk = 1 << 20

// CopyFileRange copies inside the daemon, so that the data is not carried to the kernel and back.
func (s *Server) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	_, src, releaseSrc, status := s.usedFile(cancel, in.NodeId, false)
	if status != fuse.OK {
		return 0, status
	}
	defer releaseSrc()
	n, dst, releaseDst, status := s.usedFile(cancel, in.NodeIdOut, true)
	if status != fuse.OK {
		return 0, status
	}
	defer releaseDst()
	s.dropCapabilities(n, dst)
	// The kernel takes a 32-bit count for the answer; it asks again for the rest.
	left := min(in.Len, 1<<30)
	done, err := copyRange(cancel, dst, int64(in.OffOut), src, int64(in.OffIn), int64(left))
	if err != nil && done == 0 {
		return 0, s.fail("copy_file_range", n, err)
	}
	return uint32(done), fuse.OK
}

func copyRange(cancel <-chan struct{}, dst *volume.File, dstOff int64, src *volume.File, srcOff, left int64) (int64, error) {
	buf := make([]byte, min(left, copyChunk))
	defer clear(buf)
	done := int64(0)
	for done < left {
		select {
		case <-cancel:
			return done, unix.EINTR
		default:
		}
		n, err := src.ReadAt(buf[:min(left-done, copyChunk)], srcOff+done)
		if err != nil || n == 0 {
			return done, err
		}
		if _, err := dst.WriteAt(buf[:n], dstOff+done); err != nil {
			return done, err
		}
		done += int64(n)
	}
	return done, nil
}

// Ioctl has nothing to offer.
func (s *Server) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
