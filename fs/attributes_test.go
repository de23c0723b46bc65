package fs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func attributeScenarios() []scenario {
	return []scenario{
		{name: "chmod", run: attributesChmod, after: attributesStatAll},
		{name: "chown", run: attributesChown, after: attributesStatAll},
		{name: "utimens", run: attributesTimes, after: func(s *script) { s.times("f"); s.times("d"); s.mtime("l"); s.times("fifo") }},
		{name: "utimens-open", run: attributesTimesOpen, after: func(s *script) { s.times("f"); s.content("f") }},
		{name: "times-move", run: attributesTimesMove},
		{name: "statx", run: attributesStatx, after: attributesStatxAgain},
		{name: "statfs", run: attributesStatfs},
		{name: "removed", run: attributesRemoved},
		{name: "set-id", run: attributesSetID, after: func(s *script) { s.stat("f") }},
	}
}

// attributeFiles makes one of each kind.
func attributeFiles(s *script) {
	s.file("f", pattern(1, 5000))
	s.quiet(unix.Mkdir(s.p("d"), 0o755), "mkdir")
	s.quiet(unix.Symlink("f", s.p("l")), "symlink")
	s.quiet(unix.Mkfifo(s.p("fifo"), 0o644), "mkfifo")
}

func attributesStatAll(s *script) {
	for _, name := range []string{"f", "d", "l", "fifo"} {
		s.stat(name)
	}
}

func attributesChmod(s *script) {
	attributeFiles(s)
	for _, mode := range []uint32{0, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777, 0o2745} {
		for _, name := range []string{"f", "d", "l", "fifo", "missing"} {
			s.chmod(name, mode)
			s.stat(name)
		}
	}
	s.result(unix.Fchmodat(unix.AT_FDCWD, s.p("l"), 0o600, unix.AT_SYMLINK_NOFOLLOW), "chmod of a link")
	fd := s.open("f", unix.O_RDONLY, 0)
	s.result(unix.Fchmod(fd, 0o640), "fchmod")
	s.fstat(fd)
	s.close(fd)
	attributesStatAll(s)
}

func attributesChown(s *script) {
	attributeFiles(s)
	s.quiet(unix.Chmod(s.p("f"), 0o6755), "chmod")
	for _, owner := range [][2]int{{1, 2}, {-1, 3}, {4, -1}, {-1, -1}, {1<<31 - 1, 1 << 30}, {0, 0}} {
		for _, name := range []string{"f", "d", "l", "fifo", "missing"} {
			s.chown(name, owner[0], owner[1])
			s.stat(name)
		}
	}
	fd := s.open("f", unix.O_RDONLY, 0)
	s.result(unix.Fchown(fd, 11, 12), "fchown")
	s.fstat(fd)
	s.close(fd)
	s.result(unix.Chown(s.p("l"), 21, 22), "chown through a link")
	attributesStatAll(s)
}

func (s *script) utimens(name string, a, m unix.Timespec, flags int) {
	err := again(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, s.p(name), []unix.Timespec{a, m}, flags) })
	s.result(err, "utimens %q %v %v %d", name, a, m, flags)
}

func attributesTimes(s *script) {
	attributeFiles(s)
	omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
	for i, name := range []string{"f", "d", "l", "fifo"} {
		n := int64(i)
		s.utimens(name, unix.Timespec{Sec: 1000 + n, Nsec: 123456789}, unix.Timespec{Sec: 2000 + n, Nsec: 1}, unix.AT_SYMLINK_NOFOLLOW)
		s.times(name)
		s.utimens(name, omit, unix.Timespec{Sec: 3000, Nsec: 999999999}, unix.AT_SYMLINK_NOFOLLOW)
		s.times(name)
		s.utimens(name, unix.Timespec{Sec: 4000}, omit, unix.AT_SYMLINK_NOFOLLOW)
		s.times(name)
		s.utimens(name, omit, omit, unix.AT_SYMLINK_NOFOLLOW)
		s.times(name)
		s.utimens(name, now, unix.Timespec{Sec: 5000, Nsec: 5}, unix.AT_SYMLINK_NOFOLLOW)
		s.recent(name)
		for _, sec := range []int64{0, -1, -100000, 1 << 31, 1<<33 + 7} {
			s.utimens(name, unix.Timespec{Sec: sec, Nsec: 7}, unix.Timespec{Sec: sec, Nsec: 8}, unix.AT_SYMLINK_NOFOLLOW)
			s.times(name)
		}
	}
	s.utimens("l", unix.Timespec{Sec: 77}, unix.Timespec{Sec: 78}, 0) // follows
	s.times("f")
	s.utimens("missing", omit, now, 0)
	s.utimens("f", unix.Timespec{Nsec: 1e9}, now, 0)
}

// recent writes down whether the access time is that of the last minute.
func (s *script) recent(name string) {
	var st unix.Stat_t
	s.quiet(unix.Lstat(s.p(name), &st), "stat")
	s.note("%q: atime is now: %t, mtime %d.%09d", name, time.Since(time.Unix(st.Atim.Unix())).Abs() < time.Minute, st.Mtim.Sec, st.Mtim.Nsec)
}

// attributesTimesOpen sets times of a file with data that was not written back: writing it back must not move them.
func attributesTimesOpen(s *script) {
	fd := s.open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.pwrite(fd, pattern(1, 20000), 0)
	s.utimens("f", unix.Timespec{Sec: 100, Nsec: 1}, unix.Timespec{Sec: 200, Nsec: 2}, 0)
	s.times("f")
	s.result(unix.Fsync(fd), "fsync")
	s.times("f")
	s.close(fd)
	s.times("f")
	fd = s.open("f", unix.O_RDWR, 0)
	s.mtime("f")
	s.close(fd)
	s.mtime("f")
	s.content("f")
	s.utimens("f", unix.Timespec{Sec: 100, Nsec: 1}, unix.Timespec{Sec: 300, Nsec: 3}, 0)
	s.times("f")
}

// tick waits until the clock that file systems stamp with has moved.
func tick() {
	var a, b unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &a)
	for b = a; b.Nano() < a.Nano()+9e6; _ = unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &b) {
		time.Sleep(time.Millisecond)
	}
}

// moves writes down which times of a file a call moves.
func (s *script) moves(name, what string, f func()) {
	var a, b unix.Stat_t
	s.quiet(unix.Lstat(s.p(name), &a), "stat "+name)
	tick()
	f()
	s.quiet(unix.Lstat(s.p(name), &b), "stat "+name)
	s.note("%s moves mtime of %q: %t, ctime: %t, forward: %t", what, name, a.Mtim != b.Mtim, a.Ctim != b.Ctim, b.Ctim.Nano() >= a.Ctim.Nano())
}

func attributesTimesMove(s *script) {
	attributeFiles(s)
	fd := s.open("f", unix.O_RDWR, 0)
	s.moves("f", "write", func() { s.pwrite(fd, []byte("x"), 0) })
	s.moves("f", "write after the end", func() { s.pwrite(fd, []byte("x"), 6000) })
	s.moves("f", "read", func() { s.pread(fd, 10, 0) })
	s.moves("f", "fsync", func() { s.quiet(unix.Fsync(fd), "fsync") })
	s.moves("f", "ftruncate", func() { s.quiet(unix.Ftruncate(fd, 100), "ftruncate") })
	s.moves("f", "truncate", func() { s.truncate("f", 200) })
	s.moves("f", "punch", func() {
		s.quiet(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 10), "punch")
	})
	s.moves("f", "allocate", func() { s.quiet(unix.Fallocate(fd, 0, 0, 10000), "allocate") })
	s.moves("f", "chmod", func() { s.chmod("f", 0o600) })
	s.moves("f", "chown", func() { s.chown("f", 1, 1) })
	s.moves("f", "link", func() { s.link("f", "f2") })
	s.moves("f", "unlink of another name", func() { s.unlink("f2") })
	s.moves("f", "setxattr", func() { s.quiet(unix.Setxattr(s.p("f"), "user.a", []byte("b"), 0), "setxattr") })
	s.moves("f", "removexattr", func() { s.quiet(unix.Removexattr(s.p("f"), "user.a"), "removexattr") })
	s.moves("f", "rename", func() { s.rename("f", "d/f", 0); s.rename("d/f", "f", 0) })
	s.moves("f", "close", func() { s.close(fd) })
	s.moves("f", "truncate to nothing", func() { s.truncate("f", 0) })
	s.moves("f", "open with O_TRUNC", func() { s.close(s.open("f", unix.O_WRONLY|unix.O_TRUNC, 0)) })
	s.moves("f", "open with O_TRUNC and O_CREAT", func() { s.close(s.open("f", unix.O_WRONLY|unix.O_TRUNC|unix.O_CREAT, 0)) })
	s.moves("d", "create", func() { s.file("d/x", nil) })
	s.moves("d", "write inside", func() { s.file("d/x", []byte("y")) })
	s.moves("d", "rename inside", func() { s.rename("d/x", "d/y", 0) })
	s.moves("d", "unlink inside", func() { s.unlink("d/y") })
	s.moves("d", "mkdir inside", func() { s.mkdir("d/z", 0o755) })
	s.moves("d", "chmod inside", func() { s.chmod("d/z", 0o700) })
	s.moves("d", "rename out", func() { s.rename("d/z", "z", 0) })
	s.moves("d", "rename in", func() { s.rename("z", "d/z", 0) })
	s.moves("d", "symlink", func() { s.symlink("x", "d/l") })
}

func attributesStatx(s *script) {
	before := time.Now()
	tick()
	attributeFiles(s)
	for _, name := range []string{"f", "d", "l", "fifo"} {
		var stx unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, s.p(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &stx)
		birth := time.Unix(stx.Btime.Sec, int64(stx.Btime.Nsec))
		s.result(err, "statx %q: birth known: %t, plausible: %t", name, stx.Mask&unix.STATX_BTIME != 0, birth.After(before) && birth.Before(time.Now().Add(time.Second)))
	}
	attributesStatxAgain(s)
}

func attributesStatxAgain(s *script) {
	for _, name := range []string{"f", "d", "l", "fifo"} {
		for _, flags := range []int{0, unix.AT_STATX_FORCE_SYNC, unix.AT_STATX_DONT_SYNC} {
			var stx unix.Statx_t
			err := unix.Statx(unix.AT_FDCWD, s.p(name), unix.AT_SYMLINK_NOFOLLOW|flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &stx)
			size := stx.Size
			if stx.Mode&unix.S_IFMT == unix.S_IFDIR {
				size = 0
			}
			s.result(err, "statx %q %d: mode %o nlink %d size %d owner %d:%d born before it changed: %t", name, flags, stx.Mode, stx.Nlink, size,
				stx.Uid, stx.Gid, stx.Btime.Sec <= stx.Ctime.Sec)
		}
	}
}

func attributesStatfs(s *script) {
	var st unix.Statfs_t
	err := unix.Statfs(s.dir, &st)
	s.result(err, "statfs: block %d, fragment %d, names up to %d, blocks %t, free %t, files %t", st.Bsize, st.Frsize, st.Namelen,
		st.Blocks > 0, st.Bfree > 0 && st.Bfree >= st.Bavail, st.Files > 0)
	fd := s.open(".", unix.O_RDONLY, 0)
	s.result(unix.Fstatfs(fd, &st), "fstatfs: names up to %d", st.Namelen)
	s.close(fd)
}

// attributesRemoved changes what has no name any more.
func attributesRemoved(s *script) {
	s.file("f", pattern(1, 100))
	fd := s.open("f", unix.O_RDWR, 0)
	s.unlink("f")
	s.result(unix.Fchmod(fd, 0o611), "fchmod")
	s.result(unix.Fchown(fd, 3, 4), "fchown")
	s.result(unix.Futimes(fd, []unix.Timeval{{Sec: 10}, {Sec: 20}}), "futimes")
	s.result(unix.Fsetxattr(fd, "user.x", []byte("y"), 0), "fsetxattr")
	buf := make([]byte, 10)
	n, err := unix.Fgetxattr(fd, "user.x", buf)
	s.result(err, "fgetxattr %q", buf[:max(n, 0)])
	s.fstat(fd)
	var st unix.Stat_t
	s.quiet(unix.Fstat(fd, &st), "fstat")
	s.note("times %d %d", st.Atim.Sec, st.Mtim.Sec)
	s.close(fd)
}

// attributesSetID: root's chmod keeps set-id bits, and root's write does, too.
func attributesSetID(s *script) {
	for _, mode := range []uint32{0o4755, 0o2755, 0o6755, 0o2745, 0o6644} {
		s.file("f", []byte("x"))
		s.chmod("f", mode)
		s.stat("f")
		fd := s.open("f", unix.O_RDWR, 0)
		s.write(fd, []byte("by root"))
		s.fstat(fd)
		s.result(unix.Ftruncate(fd, 3), "ftruncate")
		s.fstat(fd)
		s.close(fd)
		s.truncate("f", 1)
		s.stat("f")
		s.chmod("f", mode)
		s.chown("f", 5, 5)
		s.stat("f")
		s.chmod("f", mode)
		s.close(s.open("f", unix.O_WRONLY|unix.O_TRUNC, 0))
		s.stat("f")
		s.quiet(os.Remove(s.p("f")), "remove")
	}
	s.file("f", []byte("last"))
	s.chmod("f", 0o6755)
	s.note("kept")
}
