package fs

import (
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func aclScenarios() []scenario {
	return []scenario{
		{name: "access", run: aclAccess, after: func(s *script) { s.getfacl("f"); s.getfacl("d") }},
		{name: "inherit", run: aclInherit, after: aclInheritAgain},
		{name: "chmod", run: aclChmod, after: func(s *script) { s.getfacl("f") }},
		{name: "enforced", run: aclEnforced, after: aclEnforcedAgain},
		{name: "removed", run: aclRemoved, after: func(s *script) { s.getfacl("d"); s.stat("d/after") }},
	}
}

// tool runs a program of the acl package.
func (s *script) tool(name string, args ...string) {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	var shown []string
	for _, a := range args {
		shown = append(shown, strings.TrimPrefix(a, s.dir+"/"))
	}
	text := strings.ReplaceAll(string(out), s.dir+"/", "")
	s.note("%s %s: %v: %s", filepath.Base(name), strings.Join(shown, " "), err, text)
}

func (s *script) setfacl(args ...string) {
	args[len(args)-1] = s.p(args[len(args)-1])
	s.tool("setfacl", args...)
}

func (s *script) getfacl(name string) {
	s.tool("getfacl", "-n", "-c", "-p", "-E", s.p(name))
	s.stat(name)
}

func aclAccess(s *script) {
	s.file("f", []byte("x"))
	s.mkdir("d", 0o750)
	for _, name := range []string{"f", "d"} {
		s.getfacl(name)
		s.setfacl("-m", "u:1001:rwx,g:1002:r--", name)
		s.getfacl(name)
		s.setfacl("-m", "m::r--", name)
		s.getfacl(name)
		s.setfacl("-m", "u:1001:---,o::r", name)
		s.getfacl(name)
		s.setfacl("-x", "g:1002", name)
		s.getfacl(name)
	}
	s.setfacl("-d", "-m", "u:1001:r", "f")
	s.setfacl("-m", "u:1001:r", "missing")
	s.symlink("f", "l")
	s.setfacl("-m", "u:77:r", "l")
	s.getfacl("f")
	s.xattrs("f")
	s.setxattr("f", "system.posix_acl_access", []byte("no ACL"), 0)
	s.getxattr("f", "system.posix_acl_default", 100)
}

func aclInherit(s *script) {
	s.mkdir("plain", 0o777)
	s.mkdir("d", 0o777)
	s.setfacl("-d", "-m", "u:1001:rwx,g:1002:rx,g::rwx,o::rw", "d")
	s.getfacl("d")
	for _, umask := range []int{0o022, 0o077, 0} {
		unix.Umask(umask)
		for _, dir := range []string{"plain/", "d/"} {
			base := dir + map[int]string{0o022: "a", 0o077: "b", 0: "c"}[umask]
			s.close(s.open(base+"file", unix.O_CREAT|unix.O_RDWR, 0o666))
			s.close(s.open(base+"private", unix.O_CREAT|unix.O_RDWR, 0o600))
			s.mkdir(base+"dir", 0o777)
			s.mknod(base+"fifo", unix.S_IFIFO|0o666, 0)
			s.symlink("x", base+"link")
			fd := s.open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o666)
			s.result(unix.Linkat(fd, "", unix.AT_FDCWD, s.p(base+"tmp"), unix.AT_EMPTY_PATH), "linkat")
			s.close(fd)
		}
	}
	unix.Umask(0o022)
	aclInheritAgain(s)
	s.mkdir("d/adir/deeper", 0o777)
	s.getfacl("d/adir/deeper")
	s.file("outside", nil)
	s.rename("outside", "d/outside", 0) // moving does not inherit
	s.getfacl("d/outside")
}

func aclInheritAgain(s *script) {
	for _, dir := range []string{"plain/", "d/"} {
		for _, c := range []string{"a", "b", "c"} {
			for _, n := range []string{"file", "private", "dir", "fifo", "tmp"} {
				s.getfacl(dir + c + n)
			}
			s.stat(dir + c + "link")
		}
	}
	s.close(s.open("d/new", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.getfacl("d/new")
	s.unlink("d/new")
}

func aclChmod(s *script) {
	s.file("f", []byte("x"))
	s.setfacl("-m", "u:1001:rwx", "f")
	for _, mode := range []uint32{0o600, 0o640, 0o777, 0o4755, 0} {
		s.chmod("f", mode)
		s.getfacl("f")
	}
	s.chown("f", 1001, 1002)
	s.getfacl("f")
}

func aclEnforced(s *script) {
	s.chmod(".", 0o755)
	s.file("f", []byte("for some"))
	s.chmod("f", 0o600)
	s.mkdir("d", 0o700)
	s.file("d/inside", []byte("inside"))
	s.chmod("d/inside", 0o644)
	aclTry(s)
	s.setfacl("-m", "u:1001:r--", "f")
	s.setfacl("-m", "u:1001:rwx", "d")
	aclTry(s)
	s.setfacl("-m", "g:1002:rw-", "f")
	s.setfacl("-m", "m::r--", "f")
	aclTry(s)
	s.setfacl("-m", "u:1001:---,g:1002:rw-,m::rw-", "f")
	aclEnforcedAgain(s)
	s.as(1001, 1001, nil, func() {
		s.setxattr("f", "system.posix_acl_access", nil, 0)
		s.removexattr("f", "system.posix_acl_access")
		s.chmod("f", 0o777)
	})
}

func aclEnforcedAgain(s *script) { aclTry(s) }

// aclTry tries as users whom an ACL may or may not name.
func aclTry(s *script) {
	for _, who := range []struct {
		uid, gid int
		groups   []uint32
	}{{1001, 1001, nil}, {1003, 1002, nil}, {1004, 1004, []uint32{1002}}, {1005, 1005, nil}} {
		s.as(who.uid, who.gid, who.groups, func() {
			for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
				if fd := s.open("f", flags, 0); fd >= 0 {
					s.close(fd)
				}
			}
			s.access("f", unix.R_OK)
			s.access("f", unix.W_OK)
			s.open("d/inside", unix.O_RDONLY, 0)
			s.open("d/new", unix.O_CREAT|unix.O_WRONLY, 0o644)
			s.unlink("d/new")
		})
	}
}

func aclRemoved(s *script) {
	s.mkdir("d", 0o777)
	s.setfacl("-d", "-m", "u:1001:rwx", "d")
	s.close(s.open("d/before", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.getfacl("d/before")
	s.setfacl("-k", "d")
	s.getfacl("d")
	s.close(s.open("d/after", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.getfacl("d/after")
	s.setfacl("-d", "-m", "o::---", "d")
	s.close(s.open("d/again", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.getfacl("d/again")
	s.setfacl("-b", "d")
	s.close(s.open("d/last", unix.O_CREAT|unix.O_RDWR, 0o666))
	s.getfacl("d/last")
	s.setfacl("-b", "d/before")
	s.getfacl("d/before")
}
