package fs

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

func mmapScenarios() []scenario {
	return []scenario{
		{name: "shared", run: mmapShared, after: func(s *script) { s.content("f"); mmapCold(s) }},
		{name: "private", run: mmapPrivate, after: func(s *script) { s.content("f") }},
		{name: "permissions", run: mmapPermissions},
		{name: "unlinked", run: mmapUnlinked},
		{name: "truncated", run: mmapTruncated, after: func(s *script) { s.content("f") }},
		{name: "closed", run: mmapClosed, after: func(s *script) { s.content("f") }},
		{name: "direct", run: mmapDirect, after: func(s *script) { s.content("f") }},
	}
}

// mmap maps a part of a file; nil if that fails.
func (s *script) mmap(fd int, off int64, n, prot, flags int) []byte {
	m, err := unix.Mmap(fd, off, n, prot, flags)
	s.result(err, "mmap %d at %d, prot %d, flags %d", n, off, prot, flags)
	return m
}

func (s *script) munmap(m []byte) {
	if m != nil {
		s.quiet(unix.Munmap(m), "munmap")
	}
}

func mmapShared(s *script) {
	s.file("f", pattern(1, 5*block+100))
	a, b := s.open("f", unix.O_RDWR, 0), s.open("f", unix.O_RDWR, 0)
	m := s.mmap(a, 0, 5*block+100, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	n := s.mmap(b, 2*block, 2*block, unix.PROT_READ, unix.MAP_SHARED)
	s.note("mapped %s", digest(m))
	copy(m[block-3:], "written through the map")
	copy(m[3*block:], "seen by the other map")
	s.pread(b, 6*block, 0)
	s.note("other map %s", digest(n))
	s.pwrite(b, []byte("written through the handle"), 4*block-5)
	s.note("mapped %s", digest(m))
	s.result(unix.Msync(m, unix.MS_SYNC), "msync")
	s.result(unix.Msync(m, unix.MS_ASYNC), "msync async")
	s.pwrite(b, pattern(4, 2*block), 5*block) // makes the file longer behind the map
	s.pread(a, 8*block, 0)
	m[0], m[5*block+50] = 'X', 'Y'
	s.result(unix.Fsync(a), "fsync")
	m[1] = 'Z' // after the last sync
	s.munmap(m)
	s.munmap(n)
	s.close(a)
	s.close(b)
	s.content("f")
}

func mmapCold(s *script) {
	fd := s.open("f", unix.O_RDONLY, 0)
	m := s.mmap(fd, 0, 7*block, unix.PROT_READ, unix.MAP_SHARED)
	s.close(fd)
	s.note("mapped %s", digest(m))
	s.munmap(m)
}

func mmapPrivate(s *script) {
	s.file("f", pattern(1, 3*block))
	fd := s.open("f", unix.O_RDONLY, 0)
	m := s.mmap(fd, 0, 3*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	copy(m[100:], "mine alone")
	s.note("mapped %s", digest(m))
	s.pread(fd, 3*block, 0)
	s.close(fd)
	s.munmap(m)
	s.content("f")
}

func mmapPermissions(s *script) {
	s.file("f", pattern(1, block))
	for _, access := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
		fd := s.open("f", access, 0)
		for _, prot := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_READ | unix.PROT_EXEC} {
			for _, flags := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
				s.munmap(s.mmap(fd, 0, block, prot, flags))
			}
		}
		s.close(fd)
	}
	d := s.open(".", unix.O_RDONLY, 0)
	s.mmap(d, 0, block, unix.PROT_READ, unix.MAP_SHARED)
	s.close(d)
}

func mmapUnlinked(s *script) {
	s.file("f", pattern(1, 3*block))
	fd := s.open("f", unix.O_RDWR, 0)
	m := s.mmap(fd, 0, 3*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.unlink("f")
	copy(m[block:], "without a name")
	s.result(unix.Msync(m, unix.MS_SYNC), "msync")
	s.pread(fd, 3*block, 0)
	s.close(fd)
	s.note("mapped %s", digest(m))
	copy(m[2*block:], "without a handle")
	s.note("mapped %s", digest(m))
	s.munmap(m)
}

// touch reads a byte of a mapping and tells what happened.
func touch(m []byte, at int) (result string) {
	defer func() {
		if p := recover(); p != nil {
			result = "SIGBUS"
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return fmt.Sprint(m[at])
}

func mmapTruncated(s *script) {
	s.file("f", pattern(1, 3*block))
	fd := s.open("f", unix.O_RDWR, 0)
	m := s.mmap(fd, 0, 3*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	m[0] = 'a'
	s.result(unix.Ftruncate(fd, block+10), "ftruncate")
	for _, at := range []int{0, block - 1, block, block + 9, block + 10, 2*block - 1, 2 * block, 3*block - 1} {
		s.note("byte %d: %s", at, touch(m, at))
	}
	s.result(unix.Ftruncate(fd, 3*block), "ftruncate")
	for _, at := range []int{block + 9, block + 10, block + 20, 2 * block, 3*block - 1} {
		s.note("byte %d: %s", at, touch(m, at))
	}
	copy(m[2*block:], "after it was made longer")
	s.munmap(m)
	s.close(fd)
	s.content("f")
}

// mmapClosed writes through a map when the handle is closed already, and the file is opened again in between.
func mmapClosed(s *script) {
	s.file("f", pattern(1, 3*block))
	fd := s.open("f", unix.O_RDWR, 0)
	m := s.mmap(fd, 0, 3*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.close(fd)
	copy(m[5:], "no handle is open")
	s.content("f")
	s.rename("f", "g", 0)
	copy(m[block+5:], "it has another name")
	s.content("g")
	s.rename("g", "f", 0)
	s.munmap(m)
	s.content("f")
}

func mmapDirect(s *script) {
	s.file("f", pattern(1, 4*block))
	d := s.open("f", unix.O_RDWR|unix.O_DIRECT, 0)
	m := s.mmap(d, 0, 4*block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.note("mapped %s", digest(m))
	copy(m[block:], "through the map")
	buf := alignedBuffer(2 * block)
	n, err := unix.Pread(d, buf, block)
	s.result(err, "direct read after the map %d %s", n, digest(buf))
	copy(buf, "directly")
	n, err = unix.Pwrite(d, buf, 2*block)
	s.result(err, "direct write %d", n)
	s.note("mapped %s", digest(m))
	s.munmap(m)
	s.close(d)
	s.content("f")
}
