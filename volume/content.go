package volume

import (
	"cmp"
	"context"
	"io"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// contentChunk is how much of a file is copied at a time: enough blocks to keep every core busy.
const contentChunk = 1 << 20

// newKeyWait is how long the key of a copy is waited for.
const newKeyWait = time.Minute

// keyOfCopy takes a key for the copy of a file, when the disk keeps up with the copies made before.
func (v *Volume) keyOfCopy(ctx context.Context) (keyring.Fresh, error) {
	if err := v.WaitForRoom(ctx); err != nil {
		return keyring.Fresh{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, newKeyWait)
	defer cancel()
	return v.NewKey(ctx)
}

// contentSource is a file whose content is copied.
type contentSource interface {
	Size() int64
	// ReadAt fills p, which lies within Size.
	ReadAt(p []byte, off int64) (int, error)
	// nextData returns the next range at or after off that is no hole; from is Size if there is none.
	nextData(off int64) (from, to int64, err error)
}

// contentTarget is the new and empty file that it is copied to.
type contentTarget interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
}

// copyContent copies what from holds to the empty file to, holes as holes. moved is told of each step, in bytes.
func copyContent(ctx context.Context, from contentSource, to contentTarget, moved func(n int64)) error {
	size := from.Size()
	buf := make([]byte, min(size, contentChunk))
	written, seen := int64(0), int64(0)
	for seen < size {
		start, end, err := from.nextData(seen)
		if err != nil {
			return err
		}
		moved(start - seen)
		for seen = start; seen < end; written = seen {
			chunk := buf[:min(int64(len(buf)), end-seen)]
			if err := copyChunk(ctx, from, to, chunk, seen); err != nil {
				return err
			}
			seen += int64(len(chunk))
			moved(int64(len(chunk)))
		}
	}
	if written < size {
		return to.Truncate(size)
	}
	return nil
}

func copyChunk(ctx context.Context, from contentSource, to contentTarget, chunk []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := from.ReadAt(chunk, off)
	if err == nil && n < len(chunk) {
		err = io.ErrUnexpectedEOF
	}
	if n == 0 {
		return err
	}
	_, werr := to.WriteAt(chunk[:n], off) // what comes before a block that cannot be read is good
	return cmp.Or(err, werr)
}

// nextData looks for holes only where the file may have some. Zeros that a file without holes has on disk are damage, and
// reading it says so.
func (f *File) nextData(off int64) (from, to int64, err error) {
	size := f.Size()
	if f.extents.zeroPolicy() != crypto.HolesAllowed {
		return off, size, nil
	}
	return dataRange(f.Seek, off, size)
}

// dataRange finds the next data at or after off in a file of size bytes.
func dataRange(seek func(off int64, whence int) (int64, error), off, size int64) (from, to int64, err error) {
	from, err = seek(off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	to, err = seek(from, unix.SEEK_HOLE)
	return min(from, size), min(to, size), err
}

// plainFile is a file that is not encrypted, open by its descriptor.
type plainFile struct {
	store *backing.Store
	fd    int
	size  int64 // of one that is read
}

func (f *plainFile) Size() int64 { return f.size }

func (f *plainFile) ReadAt(p []byte, off int64) (int, error) { return f.store.ReadAt(f.fd, p, off) }

func (f *plainFile) WriteAt(p []byte, off int64) (int, error) { return f.store.WriteAt(f.fd, p, off) }

func (f *plainFile) Truncate(size int64) error { return f.store.Truncate(f.fd, size) }

func (f *plainFile) nextData(off int64) (from, to int64, err error) {
	from, to, err = dataRange(func(off int64, whence int) (int64, error) { return f.store.Seek(f.fd, off, whence) }, off, f.size)
	if err == unix.EINVAL { // a file system that knows no holes
		return off, f.size, nil
	}
	return from, to, err
}

// contentStream is a target that is written in order, such as a pipe; holes become zeros.
type contentStream struct {
	out io.Writer
	at  int64
}

func (s *contentStream) WriteAt(p []byte, off int64) (int, error) {
	if err := s.Truncate(off); err != nil {
		return 0, err
	}
	n, err := s.out.Write(p)
	s.at += int64(n)
	return n, err
}

// Truncate writes zeros up to size.
func (s *contentStream) Truncate(size int64) error {
	zeros := make([]byte, min(max(size-s.at, 0), contentChunk))
	for s.at < size {
		n, err := s.out.Write(zeros[:min(int64(len(zeros)), size-s.at)])
		s.at += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
