package fs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func resizeScenarios() []scenario {
	return []scenario{
		{name: "truncate", run: resizeTruncate, after: resizeTruncated},
		{name: "errors", run: resizeErrors},
		{name: "open-readers", run: resizeUnderReaders, after: func(s *script) { s.content("f") }},
		{name: "fallocate", run: resizeFallocate, after: resizeFallocated},
		{name: "fallocate-open", run: resizeFallocateDirty},
		{name: "seek", run: seekClosed, after: seekAgain},
		{name: "seek-open", run: seekOpen},
		{name: "seek-edges", run: seekEdges},
	}
}

// resizeTo are sizes to cut to and extend to.
var resizeTo = []int64{0, 1, block - 1, block, block + 1, 2 * block, 3*block + 5}

func resizeTruncate(s *script) {
	for _, from := range resizeTo {
		for _, to := range resizeTo {
			name := fmt.Sprintf("%d-%d", from, to)
			s.file(name, pattern(1, int(from)))
			s.truncate(name, to)
			s.content(name)
			s.truncate(name, from)
			s.content(name)
			// The same with what the kernel has not written back yet.
			fd := s.open(name, unix.O_RDWR, 0)
			s.pwrite(fd, pattern(2, 10), from)
			s.result(unix.Ftruncate(fd, to), "ftruncate")
			s.pread(fd, 5*block, 0)
			s.pwrite(fd, pattern(3, 10), to+10)
			s.pread(fd, 5*block, 0)
			s.close(fd)
			s.content(name)
		}
	}
}

func resizeTruncated(s *script) {
	for _, from := range resizeTo {
		for _, to := range resizeTo {
			s.content(fmt.Sprintf("%d-%d", from, to))
		}
	}
}

func resizeErrors(s *script) {
	s.mkdir("d", 0o755)
	s.truncate("d", 0)
	s.truncate("missing", 0)
	s.file("f", []byte("x"))
	s.truncate("f", -1)
	s.truncate("f/below", 1)
	s.mknod("fifo", unix.S_IFIFO|0o644, 0)
	s.truncate("fifo", 1)
	s.symlink("f", "l")
	s.truncate("l", 10)
	s.stat("f")
	s.stat("l")
	fd := s.open("f", unix.O_RDWR, 0)
	s.result(unix.Fallocate(fd, 0, 0, 0), "fallocate nothing")
	s.result(unix.Fallocate(fd, 0, -1, 10), "fallocate before the start")
	s.result(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE, 0, 10), "punch without keeping the size")
	s.result(unix.Fallocate(fd, 0, 1<<62, 1<<62), "fallocate beyond all bounds")
	s.close(fd)
	s.content("f")
}

func resizeUnderReaders(s *script) {
	s.file("f", pattern(1, 3*block))
	r := s.open("f", unix.O_RDONLY, 0)
	for _, size := range []int64{2*block + 5, 5 * block, 0, 10, block} {
		s.pread(r, 6*block, 0)
		s.truncate("f", size)
		s.pread(r, 6*block, 0)
		s.fstat(r)
	}
	s.close(r)
}

// fallocations are the calls that resizeFallocate makes.
var fallocations = []struct {
	name string
	mode uint32
}{
	{"allocate", 0},
	{"keep", unix.FALLOC_FL_KEEP_SIZE},
	{"punch", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE},
	{"zero", unix.FALLOC_FL_ZERO_RANGE},
	{"zero-keep", unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE},
}

var ranges = []struct{ off, n int64 }{
	{0, 1}, {0, block - 1}, {0, block}, {0, block + 1}, {1, block}, {block - 1, 2}, {block, block}, {block + 1, block - 1},
	{block / 2, 3 * block}, {0, 3 * block}, {3*block - 1, 10}, {4 * block, 5 * block}, {20*block + 3, 1},
}

func resizeFallocate(s *script) {
	for _, size := range []int{0, 1, block, 3*block + 50} {
		for _, f := range fallocations {
			for _, r := range ranges {
				name := fmt.Sprintf("%d-%s-%d-%d", size, f.name, r.off, r.n)
				s.file(name, pattern(1, size))
				fd, err := unix.Open(s.p(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
				s.quiet(err, "open")
				s.result(unix.Fallocate(fd, f.mode, r.off, r.n), "fallocate %s", name)
				s.pread(fd, 40*block, 0)
				s.close(fd)
				s.content(name)
			}
		}
	}
}

func resizeFallocated(s *script) {
	for _, size := range []int{0, 1, block, 3*block + 50} {
		for _, f := range fallocations {
			for _, r := range ranges {
				s.content(fmt.Sprintf("%d-%s-%d-%d", size, f.name, r.off, r.n))
			}
		}
	}
}

// resizeFallocateDirty does it to pages that were not written back.
func resizeFallocateDirty(s *script) {
	for _, f := range fallocations {
		for _, r := range ranges {
			fd := s.open("f", unix.O_CREAT|unix.O_RDWR|unix.O_TRUNC, 0o644)
			s.pwrite(fd, pattern(1, 3*block+50), 0)
			s.result(unix.Fallocate(fd, f.mode, r.off, r.n), "fallocate %s %d %d", f.name, r.off, r.n)
			s.pread(fd, 40*block, 0)
			s.pwrite(fd, []byte("over it"), r.off)
			s.close(fd)
			s.content("f")
		}
	}
}

const mib = 1 << 20

func seekClosed(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	for _, off := range []int64{0, 4 * mib, 9 * mib} {
		s.pwrite(fd, pattern(uint64(off), 3*block), off)
	}
	s.result(unix.Ftruncate(fd, 12*mib), "ftruncate")
	s.close(fd)
	s.close(s.open("empty", unix.O_CREAT|unix.O_RDWR, 0o644))
	fd = s.open("hole", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.result(unix.Ftruncate(fd, mib), "ftruncate")
	s.close(fd)
	fd = s.open("punched", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.pwrite(fd, pattern(3, 4*mib), 0)
	s.result(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, mib, mib), "punch")
	s.close(fd)
	seekAgain(s)
}

func seekAgain(s *script) {
	for _, name := range []string{"f", "empty", "hole", "punched"} {
		fd := s.open(name, unix.O_RDONLY, 0)
		for _, off := range []int64{0, 1, 3 * block, mib, 4 * mib, 4*mib + 3*block, 8 * mib, 9 * mib, 10 * mib, 12 * mib, 13 * mib, -1} {
			s.seek(fd, off, unix.SEEK_DATA)
			s.seek(fd, off, unix.SEEK_HOLE)
		}
		s.close(fd)
	}
}

func (s *script) seek(fd int, off int64, whence int) {
	at, err := unix.Seek(fd, off, whence)
	s.result(err, "lseek %d %d -> %d", off, whence, at)
}

// seekOpen looks for data that the application has written and nobody has asked to be written back.
func seekOpen(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.pwrite(fd, pattern(1, 2*block), 2*mib)
	for _, off := range []int64{0, 2 * mib, 2*mib + 3} {
		s.seek(fd, off, unix.SEEK_DATA)
		s.seek(fd, off, unix.SEEK_HOLE)
	}
	s.pwrite(fd, pattern(1, 2*block), 0)
	s.seek(fd, 0, unix.SEEK_DATA)
	s.seek(fd, 0, unix.SEEK_HOLE)
	s.pwrite(fd, pattern(1, 100), 4*mib)
	s.seek(fd, 2*mib+2*block, unix.SEEK_DATA)
	for _, whence := range []int{unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END, 99} {
		s.seek(fd, 5, whence)
	}
	s.seek(fd, -5*mib, unix.SEEK_CUR)
	s.close(fd)
}

// seekEdges puts small holes and small pieces of data everywhere. Holes may be reported coarsely, but what is called a hole
// must hold zeros, and the parts must cover the file.
func seekEdges(s *script) {
	for _, gap := range []int64{1, block - 1, block, block + 1, 2 * block, 3 * block, 10*block + 7} {
		for _, length := range []int{1, block - 1, block, block + 1, 2*block + 9} {
			fd := s.open("f", unix.O_CREAT|unix.O_RDWR|unix.O_TRUNC, 0o644)
			off := int64(0)
			for range 5 {
				off += gap
				s.pwrite(fd, pattern(1, length), off)
				off += int64(length)
			}
			s.close(fd)
			fd = s.open("f", unix.O_RDONLY, 0)
			s.note("gap %d, data %d: %s", gap, length, mapOf(fd, off))
			s.close(fd)
		}
	}
}

// mapOf walks a file of the given size with SEEK_DATA and SEEK_HOLE.
func mapOf(fd int, size int64) string {
	for pos := int64(0); pos < size; {
		data, err := unix.Seek(fd, pos, unix.SEEK_DATA)
		if err == unix.ENXIO {
			data = size
		} else if err != nil {
			return err.Error()
		}
		buf := make([]byte, data-pos)
		if _, err := unix.Pread(fd, buf, pos); err != nil {
			return err.Error()
		}
		for i, c := range buf {
			if c != 0 {
				return fmt.Sprintf("data at %d is called a hole", pos+int64(i))
			}
		}
		if data == size {
			break
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil || hole <= data {
			return fmt.Sprintf("hole %d after data %d: %v", hole, data, err)
		}
		pos = hole
	}
	return "fits"
}
