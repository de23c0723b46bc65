package fs

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The kernel checks permissions on a mount that all users may enter; these scenarios are the ones in which somebody else
// than the owner of the mount is at work.
func userScenarios() []scenario {
	return []scenario{
		{name: "access", run: userAccess, after: userTry},
		{name: "owned", run: userOwned, after: func(s *script) { s.tree("d") }},
		{name: "search", run: userSearch},
		{name: "sticky", run: userSticky},
		{name: "groups", run: userGroups},
		{name: "setgid-directory", run: userSetgidDirectory, after: func(s *script) { s.tree("d") }},
		{name: "set-id-cleared", run: userSetIDCleared, after: func(s *script) { s.stat("f") }},
		{name: "capability", run: userCapability, after: func(s *script) { s.xattrs("f"); s.xattrs("g") }},
		{name: "attributes", run: userAttributes},
		{name: "xattrs", run: userXattrs, after: func(s *script) { s.xattrs("mine") }},
		{name: "removed-rights", run: userRemovedRights},
		{name: "umask", run: userUmask},
	}
}

// tree writes down the attributes of all kinds of entry that makeAll makes.
func (s *script) tree(dir string) {
	s.stat(dir)
	for _, n := range []string{"file", "dir", "fifo", "link", "tmp", "node", "hard", "setid"} {
		s.stat(dir + "/" + n)
	}
}

// makeAll makes one entry of each kind.
func (s *script) makeAll(dir string) {
	s.close(s.open(dir+"/file", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.mkdir(dir+"/dir", 0o777)
	s.mknod(dir+"/fifo", unix.S_IFIFO|0o666, 0)
	s.mknod(dir+"/node", unix.S_IFREG|0o640, 0)
	s.symlink("x", dir+"/link")
	fd := s.open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o644)
	s.fstat(fd)
	s.result(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.p(dir+"/tmp"), unix.AT_SYMLINK_FOLLOW), "linkat")
	s.close(fd)
	s.link(dir+"/file", dir+"/hard")
	s.close(s.open(dir+"/setid", unix.O_CREAT|unix.O_RDWR, 0o6777))
}

func userAccess(s *script) {
	for _, mode := range []uint32{0, 0o600, 0o640, 0o644, 0o666, 0o200, 0o007, 0o070} {
		name := fmt.Sprintf("m%03o", mode)
		s.file(name, []byte("content"))
		s.quiet(unix.Chmod(s.p(name), mode), "chmod")
		s.quiet(unix.Chown(s.p(name), 1001, 1002), "chown")
	}
	userTry(s)
}

func userTry(s *script) {
	for _, who := range []struct {
		uid, gid int
		groups   []uint32
	}{{1001, 9, nil}, {1003, 1002, nil}, {1003, 9, []uint32{5, 1002}}, {1003, 9, nil}, {0, 0, nil}} {
		s.as(who.uid, who.gid, who.groups, func() {
			for _, mode := range []uint32{0, 0o600, 0o640, 0o644, 0o666, 0o200, 0o007, 0o070} {
				name := fmt.Sprintf("m%03o", mode)
				for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDONLY | unix.O_TRUNC} {
					if flags&unix.O_TRUNC != 0 && who.uid == 0 {
						continue // keep the content
					}
					if fd := s.open(name, flags, 0); fd >= 0 {
						s.close(fd)
					}
				}
				s.access(name, unix.R_OK|unix.W_OK)
				s.access(name, unix.X_OK)
				s.truncate(name, 5)
			}
		})
	}
}

func userOwned(s *script) {
	s.mkdir("d", 0o777)
	s.chmod("d", 0o777)
	s.as(1001, 1002, []uint32{1003}, func() { s.makeAll("d") })
	s.tree("d")
	s.mkdir("root", 0o755)
	s.as(1001, 1002, nil, func() { s.makeAll("root") })
	s.list("root")
}

func userSearch(s *script) {
	s.mkdir("d", 0o711)
	s.mkdir("d/e", 0o755)
	s.file("d/e/f", []byte("found"))
	for _, mode := range []uint32{0o700, 0o711, 0o744, 0o755, 0o766, 0o733} {
		s.chmod("d", mode)
		s.as(1001, 1001, nil, func() {
			s.stat("d/e/f")
			s.open("d/e/f", unix.O_RDONLY, 0)
			s.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			s.open("d/new", unix.O_CREAT|unix.O_WRONLY, 0o600)
			s.stat("d/missing")
			s.list("d")
			s.unlink("d/new")
		})
	}
}

func userSticky(s *script) {
	s.mkdir("d", 0o777)
	s.chmod("d", 0o1777)
	s.as(1001, 1001, nil, func() {
		s.close(s.open("d/of-1001", unix.O_CREAT|unix.O_WRONLY, 0o666))
		s.mkdir("d/dir", 0o777)
	})
	s.file("d/of-root", nil)
	s.as(1002, 1002, nil, func() {
		s.unlink("d/of-1001")
		s.unlink("d/of-root")
		s.rmdir("d/dir")
		s.rename("d/of-1001", "d/mine", 0)
		s.close(s.open("d/of-1002", unix.O_CREAT|unix.O_WRONLY, 0o600))
		s.rename("d/of-1002", "d/of-1001", 0) // over another's
		s.rename("d/of-1002", "d/of-root", unix.RENAME_EXCHANGE)
		s.rename("d/of-1002", "d/renamed", 0)
		s.unlink("d/renamed")
	})
	s.as(1001, 1001, nil, func() {
		s.unlink("d/of-1001")
		s.rmdir("d/dir")
		s.unlink("d/of-root")
	})
	s.chown("d", 1003, 1003)
	s.as(1003, 1003, nil, func() { s.unlink("d/of-root") })
	s.list("d")
}

func userGroups(s *script) {
	s.mkdir("d", 0o770)
	s.chown("d", 0, 1002)
	s.chmod("d", 0o770)
	s.as(1001, 1001, []uint32{1002}, func() {
		s.close(s.open("d/f", unix.O_CREAT|unix.O_WRONLY, 0o660))
		s.stat("d/f")
		s.chown("d/f", -1, 1002) // to a group of the caller's
		s.stat("d/f")
		s.chown("d/f", -1, 1003)
		s.chown("d/f", 1002, -1)
		s.chmod("d/f", 0o2770)
		s.stat("d/f")
		s.chown("d/f", -1, 1001)
		s.chmod("d/f", 0o2750)
		s.stat("d/f")
	})
	s.chown("d/f", 1001, 1005)
	s.as(1001, 1001, []uint32{1002}, func() {
		s.chmod("d/f", 0o2770) // not a group of the caller's: the bit goes
		s.stat("d/f")
	})
	s.as(1001, 1001, nil, func() { s.stat("d/f") })
}

func userSetgidDirectory(s *script) {
	s.mkdir("d", 0o777)
	s.chown("d", 0, 1005)
	s.chmod("d", 0o2777)
	s.stat("d")
	s.as(1001, 1002, nil, func() {
		s.makeAll("d")
		s.mkdir("d/dir/deeper", 0o755)
		s.stat("d/dir/deeper")
		s.close(s.open("d/dir/deeper/f", unix.O_CREAT|unix.O_RDWR, 0o2771))
		s.stat("d/dir/deeper/f")
	})
	s.as(1001, 1005, nil, func() {
		s.close(s.open("d/member", unix.O_CREAT|unix.O_RDWR, 0o2771))
		s.stat("d/member")
	})
	s.mkdir("d/by-root", 0o700)
	s.stat("d/by-root")
	s.close(s.open("d/root-file", unix.O_CREAT|unix.O_RDWR, 0o2755))
	s.stat("d/root-file")
	s.tree("d")
}

func userSetIDCleared(s *script) {
	for _, mode := range []uint32{0o4777, 0o2777, 0o6777, 0o2767, 0o6666} {
		for _, what := range []string{"write", "pwrite", "truncate", "ftruncate", "O_TRUNC", "fallocate", "chown", "copy", "mmap"} {
			s.file("f", []byte("program"))
			s.quiet(unix.Chown(s.p("f"), 1001, 1002), "chown")
			s.quiet(unix.Chmod(s.p("f"), mode), "chmod")
			s.as(1001, 1002, nil, func() { s.change("f", what) })
			s.stat("f")
			s.quiet(unix.Chmod(s.p("f"), mode), "chmod")
			s.as(1009, 1009, nil, func() { s.change("f", what) }) // not the owner
			s.stat("f")
		}
	}
}

// change changes a file in one way.
func (s *script) change(name, what string) {
	if what == "truncate" || what == "chown" {
		if what == "truncate" {
			s.truncate(name, 3)
		} else {
			s.chown(name, -1, 1002)
		}
		return
	}
	flags := unix.O_RDWR
	if what == "O_TRUNC" {
		flags |= unix.O_TRUNC
	}
	fd := s.open(name, flags, 0)
	switch what {
	case "write":
		s.write(fd, []byte("changed"))
	case "pwrite":
		s.pwrite(fd, []byte("changed"), 1000)
	case "ftruncate":
		s.result(unix.Ftruncate(fd, 2), "ftruncate")
	case "fallocate":
		s.result(unix.Fallocate(fd, 0, 0, 5000), "fallocate")
	case "copy":
		s.copyRange(fd, 0, fd, 100, 5)
	case "mmap":
		s.munmap(s.mmap(fd, 0, 5, unix.PROT_READ, unix.MAP_SHARED))
	}
	s.fstat(fd)
	s.close(fd)
}

// userCapability: a change of content takes the capabilities of a program away, whoever makes it.
func userCapability(s *script) {
	// A VFS_CAP_REVISION_2 attribute that permits CAP_NET_RAW.
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, what := range []string{"write", "pwrite", "truncate", "ftruncate", "O_TRUNC", "fallocate", "copy"} {
		for _, uid := range []int{0, 1001} {
			s.file("f", []byte("program"))
			s.quiet(unix.Chown(s.p("f"), 1001, 1001), "chown")
			s.setxattr("f", "security.capability", capability, 0)
			s.getxattr("f", "security.capability", 100)
			s.as(uid, uid, nil, func() { s.change("f", what) })
			s.getxattr("f", "security.capability", 100)
		}
	}
	fd := s.open("f", unix.O_RDWR, 0)
	s.write(fd, []byte("first"))
	s.setxattr("f", "security.capability", capability, 0)
	s.write(fd, []byte("second"))
	s.getxattr("f", "security.capability", 100)
	s.setxattr("f", "security.capability", capability, 0)
	s.close(fd)
	s.getxattr("f", "security.capability", 100)
	s.setxattr("f", "security.capability", []byte("none"), 0)
	s.file("g", nil)
	s.setxattr("g", "security.capability", capability, 0)
	s.as(1001, 1001, nil, func() { s.removexattr("g", "security.capability") })
	s.chown("f", 1002, -1)
	s.getxattr("f", "security.capability", 100)
}

func userAttributes(s *script) {
	s.file("of-root", []byte("x"))
	s.file("of-1001", []byte("x"))
	s.quiet(unix.Chown(s.p("of-1001"), 1001, 1001), "chown")
	s.quiet(unix.Chmod(s.p("of-1001"), 0o666), "chmod")
	omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
	past := unix.Timespec{Sec: 1000}
	for _, uid := range []int{1001, 1002} {
		s.as(uid, uid, nil, func() {
			for _, name := range []string{"of-root", "of-1001"} {
				s.chmod(name, 0o666)
				s.chown(name, uid, uid)
				s.chown(name, 0, 0)
				s.utimens(name, past, past, 0)
				s.utimens(name, now, now, 0)
				s.utimens(name, omit, now, 0)
				s.utimens(name, omit, omit, 0)
				s.open(name, unix.O_RDONLY|unix.O_NOATIME, 0)
				s.stat(name)
			}
			s.mknod("device", unix.S_IFCHR|0o600, unix.Mkdev(1, 3))
			s.link("of-root", "linked")
		})
	}
}

func userXattrs(s *script) {
	s.file("mine", nil)
	s.quiet(unix.Chown(s.p("mine"), 1001, 1001), "chown")
	s.quiet(unix.Chmod(s.p("mine"), 0o640), "chmod")
	s.setxattr("mine", "user.by-root", []byte("r"), 0)
	s.setxattr("mine", "trusted.by-root", []byte("t"), 0)
	s.setxattr("mine", "security.by-root", []byte("s"), 0)
	s.mkdir("sticky", 0o777)
	s.chmod("sticky", 0o1777)
	for _, uid := range []int{1001, 1002} {
		s.as(uid, uid, nil, func() {
			for _, attr := range []string{"user.new", "user.by-root", "trusted.by-root", "security.by-root", "trusted.new", "security.new"} {
				s.getxattr("mine", attr, 10)
				s.setxattr("mine", attr, []byte("v"), 0)
				s.removexattr("mine", attr)
			}
			s.setxattr("sticky", "user.x", []byte("x"), 0)
			s.setxattr("mine", "user.kept", []byte("kept"), 0)
		})
	}
	s.xattrs("mine")
}

// userRemovedRights: what is open stays usable.
func userRemovedRights(s *script) {
	s.file("f", []byte("content"))
	s.quiet(unix.Chmod(s.p("f"), 0o666), "chmod")
	s.as(1001, 1001, nil, func() {
		fd := s.open("f", unix.O_RDWR, 0)
		s.quiet(unix.Fchdir(fd), "fchdir to a file")
		s.result(unix.Fchmod(fd, 0o600), "fchmod of another's file")
		s.pwrite(fd, []byte("still"), 0)
		s.close(fd)
	})
	fd := -1
	s.as(1001, 1001, nil, func() { fd = s.open("f", unix.O_RDWR, 0) })
	s.chmod("f", 0)
	s.as(1001, 1001, nil, func() {
		s.pread(fd, 10, 0)
		s.pwrite(fd, []byte("later"), 2)
		s.open("f", unix.O_RDONLY, 0)
	})
	s.close(fd)
	s.content("f")
}

func userUmask(s *script) {
	s.mkdir("d", 0o777)
	s.chmod("d", 0o777)
	for _, umask := range []int{0, 0o027, 0o077} {
		unix.Umask(umask)
		s.as(1001, 1001, nil, func() {
			name := fmt.Sprintf("d/%03o", umask)
			s.mkdir(name, 0o777)
			s.makeAll(name)
			s.tree(name)
		})
	}
	unix.Umask(0o022)
}
