package fs

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const block = 4096

// sizes are those around the edges of blocks.
var sizes = []int{0, 1, 15, 16, block - 1, block, block + 1, 2*block - 1, 2 * block, 2*block + 1, 5*block + 77}

func contentScenarios() []scenario {
	all := func(s *script) {
		for _, n := range sizes {
			s.content(fmt.Sprint("f", n))
		}
	}
	return []scenario{
		{name: "edges", run: contentEdges, after: all},
		{name: "overwrite", run: contentOverwrite, after: all},
		{name: "vectors", run: contentVectors, after: func(s *script) { s.content("f") }},
		{name: "large", run: contentLarge, after: func(s *script) { s.content("f") }},
		{name: "far", run: contentFar, after: contentFarAgain},
		{name: "direct", run: contentDirect, after: func(s *script) { s.content("f") }},
		{name: "copy-range", run: contentCopyRange, after: func(s *script) { s.content("a"); s.content("b"); s.content("holes-copy") }},
		{name: "splice", run: contentSplice, after: func(s *script) { s.content("sent"); s.content("spliced") }},
		{name: "unlinked", run: contentUnlinked},
		{name: "parallel-append", run: contentParallelAppend},
	}
}

func contentEdges(s *script) {
	for _, n := range sizes {
		name := fmt.Sprint("f", n)
		fd := s.open(name, unix.O_CREAT|unix.O_RDWR, 0o644)
		s.write(fd, pattern(uint64(n), n))
		for _, off := range []int64{0, 1, block - 1, block, block + 1, 3 * block, int64(n), int64(n) + 1} {
			for _, length := range []int{0, 1, block - 1, block, block + 1, 3 * block} {
				s.pread(fd, length, off)
			}
		}
		s.close(fd)
		s.content(name)
	}
}

func contentOverwrite(s *script) {
	for _, n := range sizes {
		name := fmt.Sprint("f", n)
		for _, off := range []int64{0, 1, block - 1, block, block + 1, 3*block + 5, 9 * block} {
			for _, length := range []int{1, block - 1, block, 2*block + 3} {
				s.file(name, pattern(1, n))
				fd, err := unix.Open(s.p(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
				s.quiet(err, "open")
				s.pwrite(fd, pattern(2, length), off)
				s.close(fd)
				s.content(name)
			}
		}
	}
}

func contentVectors(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	n, err := unix.Writev(fd, [][]byte{pattern(1, 100), nil, pattern(2, block), pattern(3, 5)})
	s.result(err, "writev %d", n)
	n, err = unix.Pwritev(fd, [][]byte{pattern(4, 3*block), pattern(5, 1)}, 50)
	s.result(err, "pwritev %d", n)
	a, b := make([]byte, 77), make([]byte, 5*block)
	n, err = unix.Preadv(fd, [][]byte{a, b}, 33)
	s.result(err, "preadv %d %s %s", n, digest(a), digest(b))
	n, err = unix.Pwritev2(fd, [][]byte{[]byte("durable")}, 10, unix.RWF_DSYNC)
	s.result(err, "pwritev2 dsync %d", n)
	n, err = unix.Pwritev2(fd, [][]byte{[]byte("durable")}, 8000, unix.RWF_SYNC)
	s.result(err, "pwritev2 sync %d", n)
	n, err = unix.Preadv2(fd, [][]byte{a}, 0, unix.RWF_HIPRI)
	s.result(err, "preadv2 %d %s", n, digest(a))
	s.close(fd)
	s.content("f")
}

// contentLarge crosses the largest request, in writes and in reads.
func contentLarge(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	for i, n := range []int{1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 12345} {
		s.write(fd, pattern(uint64(i), n))
	}
	for _, off := range []int64{0, 1, 1<<20 - 1, 1 << 20, 2<<20 + 17} {
		s.pread(fd, 2<<20+1, off)
	}
	s.close(fd)
	s.content("f")
}

const far = 5<<30 + 123

// contentFar works where 32 bits do not reach.
func contentFar(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.pwrite(fd, []byte("near"), 0)
	s.pwrite(fd, pattern(1, 10000), far)
	s.pwrite(fd, pattern(2, 3), 4<<30-1)
	s.fstat(fd)
	s.close(fd)
	contentFarAgain(s)
}

func contentFarAgain(s *script) {
	fd := s.open("f", unix.O_RDONLY, 0)
	for _, off := range []int64{0, 4<<30 - 5000, 4<<30 - 1, 4 << 30, far - 100, far, far + 9990} {
		s.pread(fd, 10000, off)
	}
	for _, off := range []int64{0, 1 << 20, 4<<30 - 1, 4<<30 + 1<<20, far} {
		at, err := unix.Seek(fd, off, unix.SEEK_DATA)
		// Data starts at the same block; where the page begins that holds it, is the disk's business.
		s.result(err, "data after %d at block %d", off, at/block)
	}
	end, err := unix.Seek(fd, 0, unix.SEEK_END)
	s.result(err, "end %d", end)
	s.close(fd)
}

// alignedBuffer is memory as O_DIRECT wants it.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+block)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % block)
	return b[skip : skip+n : skip+n]
}

func contentDirect(s *script) {
	s.file("f", pattern(1, 10*block))
	d, b := s.open("f", unix.O_RDWR|unix.O_DIRECT, 0), s.open("f", unix.O_RDWR, 0)
	buf := alignedBuffer(3 * block)
	n, err := unix.Pread(d, buf, 2*block)
	s.result(err, "direct read %d %s", n, digest(buf))
	s.pwrite(b, pattern(2, 2*block), 3*block-7) // buffered, then read directly
	n, err = unix.Pread(d, buf, 2*block)
	s.result(err, "direct read after a buffered write %d %s", n, digest(buf))
	s.pread(b, 4*block, 0)
	copy(buf, pattern(3, 3*block))
	n, err = unix.Pwrite(d, buf, block) // direct, then read buffered
	s.result(err, "direct write %d", n)
	s.pread(b, 10*block, 0)
	n, err = unix.Pwrite(d, buf, 10*block) // makes it longer
	s.result(err, "direct write at the end %d", n)
	s.fstat(b)
	n, err = unix.Pwrite(d, buf[:block], 20*block) // leaves a hole
	s.result(err, "direct write behind the end %d", n)
	s.pread(b, 30*block, 9*block)
	n, err = unix.Pread(d, buf, 20*block)
	s.result(err, "direct read up to the end %d %s", n, digest(buf[:max(n, 0)]))
	n, err = unix.Pread(d, buf, 40*block)
	s.result(err, "direct read behind the end %d", n)
	s.result(unix.Ftruncate(b, 2*block+100), "ftruncate")
	n, err = unix.Pread(d, buf, 0)
	s.result(err, "direct read of a cut file %d %s", n, digest(buf[:max(n, 0)]))
	s.close(d)
	s.close(b)
	s.content("f")
}

func (s *script) copyRange(in int, inOff int64, out int, outOff int64, n int) {
	a, b := inOff, outOff
	done, err := unix.CopyFileRange(in, &a, out, &b, n, 0)
	s.result(err, "copy_file_range %d to %d, %d -> %d, now %d and %d", inOff, outOff, n, done, a, b)
}

func contentCopyRange(s *script) {
	s.file("a", pattern(1, 10*block+100))
	s.file("b", pattern(2, 3*block))
	a, b := s.open("a", unix.O_RDWR, 0), s.open("b", unix.O_RDWR, 0)
	s.pwrite(a, []byte("not written back yet"), 5000)
	s.copyRange(a, 0, b, 0, 2*block)
	s.copyRange(a, 3, b, 5, block)
	s.copyRange(a, 9*block, b, 20*block, 5*block)
	s.copyRange(a, 11*block, b, 0, 10)
	s.copyRange(a, 0, b, 2*block, 0)
	s.pread(b, 30*block, 0)
	s.copyRange(a, 0, a, 5*block, 3*block)
	s.copyRange(a, 0, a, block, 2*block) // overlaps
	s.copyRange(a, block, a, 0, 2*block) // overlaps
	s.copyRange(a, 0, a, 10*block+100, 5000)
	s.pread(a, 30*block, 0)
	r := s.open("b", unix.O_RDONLY, 0)
	s.copyRange(a, 0, r, 0, 10)
	ap := s.open("b", unix.O_WRONLY|unix.O_APPEND, 0)
	s.copyRange(a, 0, ap, 0, 10)
	s.copyRange(ap, 0, a, 0, 10)
	dir := s.open(".", unix.O_RDONLY, 0)
	s.copyRange(dir, 0, b, 0, 10)
	h := s.open("holes", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.pwrite(h, pattern(3, 100), 1<<20)
	s.pwrite(h, pattern(4, 100), 3<<20)
	c := s.open("holes-copy", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.copyRange(h, 0, c, 0, 4<<20)
	s.copyRange(h, 0, c, 7<<20, 4<<20)
	s.pread(c, 12<<20, 0)
	for _, fd := range []int{a, b, r, ap, dir, h, c} {
		s.close(fd)
	}
	s.content("a")
	s.content("b")
}

func contentSplice(s *script) {
	s.file("from", pattern(1, 300_000))
	in := s.open("from", unix.O_RDONLY, 0)
	out := s.open("sent", unix.O_CREAT|unix.O_RDWR, 0o644)
	for left := 250_000; left > 0; {
		n, err := unix.Sendfile(out, in, nil, left)
		if err != nil || n == 0 {
			s.result(err, "sendfile %d", n)
			break
		}
		left -= n
	}
	s.close(out)
	s.content("sent")
	var pipe [2]int
	s.quiet(unix.Pipe2(pipe[:], unix.O_CLOEXEC), "pipe")
	out = s.open("spliced", unix.O_CREAT|unix.O_RDWR, 0o644)
	inOff, outOff := int64(10), int64(20)
	for range 4 {
		n, err := unix.Splice(in, &inOff, pipe[1], nil, 10_000, 0)
		s.result(err, "splice into a pipe %d", n)
		m, err := unix.Splice(pipe[0], nil, out, &outOff, int(n), 0)
		s.result(err, "splice out of a pipe %d", m)
	}
	s.close(in)
	s.close(out)
	s.content("spliced")
}

func contentUnlinked(s *script) {
	for _, n := range sizes {
		s.file("f", pattern(1, n))
		fd := s.open("f", unix.O_RDWR, 0)
		s.unlink("f")
		s.fstat(fd)
		s.pread(fd, 2*n+1, 0)
		s.pwrite(fd, []byte("still here"), int64(n)+5000)
		s.result(unix.Fchmod(fd, 0o600), "fchmod")
		s.result(unix.Fchown(fd, 7, 8), "fchown")
		s.result(unix.Ftruncate(fd, int64(n)+100), "ftruncate")
		s.result(unix.Fsync(fd), "fsync")
		s.fstat(fd)
		s.pread(fd, 2*n+200, 0)
		s.file("f", []byte("another of the same name"))
		s.pread(fd, 10, 0)
		s.close(fd)
		s.content("f")
	}
}

// contentParallelAppend has several handles append at the same time: nothing may be lost or torn.
func contentParallelAppend(s *script) {
	s.file("f", nil)
	const writers, rounds, size = 6, 60, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			f, err := os.OpenFile(s.p("f"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				s.note("open: %v", err)
				return
			}
			for range rounds {
				record := make([]byte, size)
				for i := range record {
					record[i] = byte('a' + w)
				}
				if _, err := f.Write(record); err != nil {
					s.note("append: %v", err)
				}
			}
			s.quiet(f.Close(), "close")
		})
	}
	wg.Wait()
	b, err := os.ReadFile(s.p("f"))
	s.result(err, "read %d bytes", len(b))
	count := map[byte]int{}
	for i := 0; i+size <= len(b); i += size {
		for _, c := range b[i : i+size] {
			if c != b[i] {
				s.note("torn at %d", i)
				break
			}
		}
		count[b[i]]++
	}
	s.note("records %v", count)
}
