package fs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func openScenarios() []scenario {
	return []scenario{
		{name: "flags", run: openEveryFlag},
		{name: "exclusive", run: openExclusive},
		{name: "trunc", run: openTrunc, after: func(s *script) { s.content("r"); s.content("w"); s.content("rw") }},
		{name: "append", run: openAppend, after: func(s *script) { s.content("f") }},
		{name: "kinds", run: openKinds},
		{name: "path", run: openPath},
		{name: "unlinked-path", run: openPathUnlinked},
		{name: "modes", run: openModes},
		{name: "wrong-direction", run: openWrongDirection},
		{name: "setfl", run: openSetFlags},
		{name: "tmpfile", run: openTmpfile, after: func(s *script) { s.list("."); s.content("named"); s.stat("named") }},
		{name: "readers-then-writer", run: openUpgrade, after: func(s *script) { s.content("f"); s.content("empty") }},
	}
}

func openEveryFlag(s *script) {
	for _, flag := range []int{0, unix.O_DSYNC, unix.O_SYNC, unix.O_NOATIME, unix.O_NONBLOCK, unix.O_LARGEFILE, unix.O_NOCTTY,
		unix.O_NOFOLLOW, unix.O_ASYNC, unix.O_DIRECTORY, unix.O_TRUNC, unix.O_APPEND} {
		for _, access := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
			s.file("f", []byte("content"))
			s.file("empty", nil)
			s.quiet(unix.Mkdir(s.p("d"), 0o755), "mkdir")
			for _, name := range []string{"f", "empty", "d", "missing", "f/below", "missing/below", ""} {
				if fd := s.open(name, access|flag, 0); fd >= 0 {
					got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
					s.result(err, "getfl %#x", got)
					s.read(fd, 20)
					s.write(fd, []byte("new"))
					s.close(fd)
					s.size(name)
				}
			}
			s.quiet(unix.Rmdir(s.p("d")), "rmdir")
		}
	}
}

func openExclusive(s *script) {
	excl := unix.O_CREAT | unix.O_EXCL | unix.O_RDWR
	s.close(s.open("new", excl, 0o644))
	s.open("new", excl, 0o644)
	s.mkdir("d", 0o755)
	s.open("d", excl, 0o644)
	s.open("d", unix.O_CREAT, 0o644)
	s.open("d", unix.O_CREAT|unix.O_DIRECTORY, 0o644)
	s.symlink("nowhere", "dangling")
	s.open("dangling", excl, 0o644)
	s.open("dangling", unix.O_RDONLY, 0)
	s.close(s.open("dangling", unix.O_CREAT|unix.O_RDWR, 0o640))
	s.stat("nowhere")
	s.symlink("loop2", "loop1")
	s.symlink("loop1", "loop2")
	s.open("loop1", unix.O_RDONLY, 0)
	s.open("loop1", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.list(".")
}

func openTrunc(s *script) {
	for name, access := range map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR} {
		s.file(name, pattern(1, 10000))
		fd, err := unix.Open(s.p(name), access|unix.O_TRUNC, 0)
		s.quiet(err, "open "+name)
		if err := unix.Close(fd); err != nil {
			s.result(err, "close")
		}
	}
	for _, name := range []string{"r", "w", "rw"} {
		s.content(name)
	}
	s.file("w", pattern(2, 5000))
	reader := s.open("w", unix.O_RDONLY, 0)
	s.pread(reader, 5000, 0)
	s.close(s.open("w", unix.O_WRONLY|unix.O_TRUNC|unix.O_CREAT, 0o600))
	s.pread(reader, 5000, 0)
	s.fstat(reader)
	s.close(reader)
}

func openAppend(s *script) {
	a := s.open("f", unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
	b := s.open("f", unix.O_RDWR|unix.O_APPEND, 0)
	c := s.open("f", unix.O_RDWR, 0)
	for i := range 40 {
		s.write(a, pattern(uint64(i), 333))
		s.write(b, pattern(uint64(i)+100, 1024))
		s.pwrite(b, []byte("an offset does not count"), 5)
		s.pwrite(c, []byte("here it does"), int64(i)*1000)
	}
	pos, err := unix.Seek(a, 0, unix.SEEK_CUR)
	s.result(err, "position %d", pos)
	s.result(unix.Ftruncate(c, 4096), "ftruncate")
	s.write(a, []byte("at the new end"))
	n, err := unix.Pwritev2(c, [][]byte{[]byte("appended "), []byte("by call")}, -1, unix.RWF_APPEND)
	s.result(err, "pwritev2 append %d", n)
	for _, fd := range []int{a, b, c} {
		s.close(fd)
	}
	s.content("f")
}

func openKinds(s *script) {
	s.file("f", []byte("x"))
	s.mkdir("d", 0o755)
	s.symlink("f", "to-f")
	s.symlink("d", "to-d")
	s.mknod("fifo", unix.S_IFIFO|0o644, 0)
	s.mknod("sock", unix.S_IFSOCK|0o644, 0)
	s.mknod("null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3))
	s.mknod("odd", unix.S_IFBLK|0o600, unix.Mkdev(241, 77))
	s.mknod("reg", unix.S_IFREG|0o640, 0)
	for _, name := range []string{"f", "d", "to-f", "to-d", "fifo", "sock", "null", "odd", "reg"} {
		for _, flag := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_DIRECTORY, unix.O_NOFOLLOW, unix.O_PATH,
			unix.O_PATH | unix.O_NOFOLLOW, unix.O_TRUNC, unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT} {
			if fd := s.open(name, flag|unix.O_NONBLOCK, 0o644); fd >= 0 {
				s.fstat(fd)
				s.close(fd)
			}
		}
	}
}

func openPath(s *script) {
	s.file("f", []byte("content"))
	s.mkdir("d", 0o755)
	s.file("d/inside", []byte("i"))
	fd := s.open("f", unix.O_PATH, 0)
	s.fstat(fd)
	s.read(fd, 5)
	s.write(fd, []byte("x"))
	s.result(unix.Fchmod(fd, 0o600), "fchmod")
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if s.result(err, "open again") {
		s.pread(again, 20, 0)
		s.close(again)
	}
	s.rename("f", "g", 0)
	s.fstat(fd)
	s.close(fd)
	dir := s.open("d", unix.O_PATH|unix.O_DIRECTORY, 0)
	s.rename("d", "e", 0)
	in, err := unix.Openat(dir, "inside", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if s.result(err, "openat in a moved directory") {
		s.read(in, 5)
		s.close(in)
	}
	s.result(unix.Mkdirat(dir, "more", 0o700), "mkdirat in a moved directory")
	s.close(dir)
	s.list("e")
}

func openPathUnlinked(s *script) {
	for _, kind := range []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR} {
		s.mknod("n", kind|0o640, unix.Mkdev(1, 5))
		fd := s.open("n", unix.O_PATH, 0)
		s.unlink("n")
		s.fstat(fd)
		s.result(unix.Fchownat(fd, "", 5, 6, unix.AT_EMPTY_PATH), "chown")
		s.fstat(fd)
		s.close(fd)
	}
	s.mkdir("d", 0o750)
	fd := s.open("d", unix.O_PATH|unix.O_DIRECTORY, 0)
	s.rmdir("d")
	s.fstat(fd)
	_, err := unix.Openat(fd, "x", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.result(err, "create in a removed directory")
	s.close(fd)
	s.symlink("target", "l")
	fd = s.open("l", unix.O_PATH|unix.O_NOFOLLOW, 0)
	s.unlink("l")
	s.fstat(fd)
	buf := make([]byte, 100)
	n, err := unix.Readlinkat(fd, "", buf)
	s.result(err, "readlink of a removed link %q", buf[:max(n, 0)])
	s.close(fd)
	s.file("f", pattern(1, 5000))
	fd = s.open("f", unix.O_PATH, 0)
	s.unlink("f")
	s.fstat(fd)
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if s.result(err, "open what is removed") {
		s.pread(again, 6000, 0)
		s.pwrite(again, []byte("changed"), 4090)
		s.pread(again, 6000, 0)
		s.close(again)
	}
	s.close(fd)
	// A handle of each kind, of which the one that keeps the file open goes first.
	s.file("g", pattern(1, 100))
	fd, rw := s.open("g", unix.O_PATH, 0), s.open("g", unix.O_RDWR, 0)
	s.unlink("g")
	s.pwrite(rw, []byte("x"), 0)
	s.close(rw)
	s.result(unix.Fchownat(fd, "", 7, 7, unix.AT_EMPTY_PATH), "chown")
	s.fstat(fd)
	s.close(fd)
}

func openModes(s *script) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		unix.Umask(umask)
		for i, mode := range []uint32{0, 0o600, 0o644, 0o666, 0o777, 0o1777, 0o4755, 0o2755, 0o7777} {
			name := fmt.Sprintf("%o-%d", umask, i)
			s.close(s.open("f"+name, unix.O_CREAT|unix.O_RDWR, mode))
			s.stat("f" + name)
			s.mkdir("d"+name, mode)
			s.stat("d" + name)
			s.mknod("n"+name, unix.S_IFIFO|mode, 0)
			s.stat("n" + name)
			fd := s.open(".", unix.O_TMPFILE|unix.O_RDWR, mode)
			s.fstat(fd)
			s.close(fd)
		}
	}
	unix.Umask(0o022)
}

func openWrongDirection(s *script) {
	s.file("f", []byte("content"))
	r, w := s.open("f", unix.O_RDONLY, 0), s.open("f", unix.O_WRONLY, 0)
	s.write(r, []byte("x"))
	s.read(w, 1)
	s.result(unix.Ftruncate(r, 1), "ftruncate for reading")
	s.result(unix.Fallocate(r, 0, 0, 10), "fallocate for reading")
	s.pwrite(w, []byte("X"), 1)
	s.pread(r, 10, 0)
	s.pwrite(w, []byte("x"), -1)
	s.pread(r, 1, -1)
	s.close(r)
	s.close(w)
	s.read(r, 1)
	d := s.open(".", unix.O_RDONLY, 0)
	s.read(d, 1)
	s.write(d, []byte("x"))
	s.result(unix.Ftruncate(d, 0), "ftruncate of a directory")
	s.close(d)
}

func openSetFlags(s *script) {
	s.file("f", []byte("12345"))
	fd := s.open("f", unix.O_RDWR, 0)
	for _, flags := range []int{unix.O_APPEND, 0, unix.O_NONBLOCK, unix.O_APPEND | unix.O_NOATIME} {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
		s.result(err, "setfl %#x", flags)
		_, err = unix.Seek(fd, 0, unix.SEEK_SET)
		s.quiet(err, "seek")
		s.write(fd, []byte("ab"))
		s.pread(fd, 100, 0)
	}
	s.close(fd)
}

func openTmpfile(s *script) {
	fd := s.open(".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	s.fstat(fd)
	s.pwrite(fd, pattern(1, 9000), 3)
	s.pread(fd, 10000, 0)
	s.list(".")
	s.result(unix.Linkat(fd, "", unix.AT_FDCWD, s.p("named"), unix.AT_EMPTY_PATH), "linkat")
	s.fstat(fd)
	s.content("named")
	s.pwrite(fd, []byte("after"), 100)
	s.close(fd)
	fd = s.open(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o600)
	s.result(unix.Linkat(fd, "", unix.AT_FDCWD, s.p("refused"), unix.AT_EMPTY_PATH), "linkat of an exclusive one")
	s.close(fd)
	fd = s.open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o600)
	s.write(fd, []byte("gone with the handle"))
	s.close(fd)
	fd = s.open(".", unix.O_TMPFILE|unix.O_WRONLY, 0o644)
	s.result(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.p("by-proc"), unix.AT_SYMLINK_FOLLOW), "linkat by /proc")
	s.write(fd, []byte("written once it had a name"))
	s.unlink("by-proc")
	s.fstat(fd)
	s.close(fd)
	s.open(".", unix.O_TMPFILE|unix.O_RDONLY, 0o600)
	s.open("named", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	s.list(".")
}

func openUpgrade(s *script) {
	s.file("f", pattern(1, 5000))
	s.file("empty", nil)
	for _, name := range []string{"f", "empty"} {
		r := s.open(name, unix.O_RDONLY, 0)
		s.pread(r, 6000, 0)
		w := s.open(name, unix.O_WRONLY, 0)
		s.pwrite(w, []byte("from the writer"), 4090)
		s.pread(r, 6000, 0)
		s.close(w)
		s.pread(r, 6000, 0)
		rw := s.open(name, unix.O_RDWR, 0)
		s.pwrite(rw, []byte("later"), 0)
		s.pread(r, 6000, 0)
		s.close(r)
		s.close(rw)
		s.content(name)
	}
}
