package fs

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func xattrScenarios() []scenario {
	return []scenario{
		{name: "kinds", run: xattrKinds, after: xattrKindsAgain},
		{name: "flags", run: xattrFlags, after: func(s *script) { s.xattrs("f") }},
		{name: "sizes", run: xattrSizes, after: xattrSizesAgain},
		{name: "errors", run: xattrErrors},
		{name: "handles", run: xattrHandles, after: func(s *script) { s.xattrs("f"); s.xattrs("d") }},
		{name: "many", run: xattrMany, after: func(s *script) { s.xattrs("f") }},
	}
}

// xattrs writes down all attributes with their values.
func (s *script) xattrs(name string) {
	buf := make([]byte, 70000)
	n, err := unix.Llistxattr(s.p(name), buf)
	if !s.result(err, "listxattr %q", name) {
		return
	}
	need, err := unix.Llistxattr(s.p(name), nil)
	s.note("size that is needed is right: %t %s", need == n, errName(err))
	names := strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	for _, attr := range names {
		if attr != "" {
			s.getxattr(name, attr, 70000)
		}
	}
}

func (s *script) getxattr(name, attr string, size int) {
	buf := make([]byte, size)
	n, err := unix.Lgetxattr(s.p(name), attr, buf)
	shown := buf[:min(max(n, 0), size)]
	s.result(err, "getxattr %q %s into %d -> %d %s", name, shorten(attr), size, n, digest(shown))
}

func (s *script) setxattr(name, attr string, value []byte, flags int) {
	err := unix.Lsetxattr(s.p(name), attr, value, flags)
	s.result(err, "setxattr %q %s %s %d", name, shorten(attr), digest(value), flags)
}

func (s *script) removexattr(name, attr string) {
	s.result(unix.Lremovexattr(s.p(name), attr), "removexattr %q %s", name, shorten(attr))
}

var xattrNames = []string{"user.a", "user.b.c", "trusted.t", "security.s", "user.ü", "user. ", "user.", "trusted.", "security.", "system.x", "odd", "odd.x", "os2.x", ""}

func xattrKinds(s *script) {
	attributeFiles(s)
	s.mknod("sock", unix.S_IFSOCK|0o644, 0)
	s.mknod("null", unix.S_IFCHR|0o644, unix.Mkdev(1, 3))
	s.mkdir("sticky", 0o1777)
	for _, name := range []string{"f", "d", "l", "fifo", "sock", "null", "sticky", "missing"} {
		for _, attr := range xattrNames {
			s.setxattr(name, attr, []byte("value of "+attr), 0)
			s.getxattr(name, attr, 100)
		}
	}
	xattrKindsAgain(s)
	for _, name := range []string{"f", "d", "l", "fifo"} {
		for _, attr := range []string{"user.a", "trusted.t", "security.s", "user.missing", "odd.x"} {
			s.removexattr(name, attr)
			s.getxattr(name, attr, 100)
		}
		s.xattrs(name)
	}
}

func xattrKindsAgain(s *script) {
	for _, name := range []string{"f", "d", "l", "fifo", "sock", "null", "sticky", "missing"} {
		s.xattrs(name)
	}
}

func xattrFlags(s *script) {
	s.file("f", nil)
	s.setxattr("f", "user.a", []byte("1"), unix.XATTR_REPLACE)
	s.setxattr("f", "user.a", []byte("2"), unix.XATTR_CREATE)
	s.setxattr("f", "user.a", []byte("3"), unix.XATTR_CREATE)
	s.getxattr("f", "user.a", 10)
	s.setxattr("f", "user.a", []byte("4"), unix.XATTR_REPLACE)
	s.getxattr("f", "user.a", 10)
	s.setxattr("f", "user.a", []byte("5"), unix.XATTR_REPLACE|unix.XATTR_CREATE)
	s.setxattr("f", "user.a", []byte("6"), 77)
	s.getxattr("f", "user.a", 10)
	s.setxattr("f", "user.a", nil, 0)
	s.getxattr("f", "user.a", 10)
	s.removexattr("f", "user.a")
	s.removexattr("f", "user.a")
	s.setxattr("f", "user.A", []byte("case counts"), 0)
	s.getxattr("f", "user.a", 20)
}

func xattrSizes(s *script) {
	s.file("f", nil)
	for _, n := range []int{0, 1, 39, 40, 41, 100, 1000, 2000, 3500} {
		value := pattern(uint64(n), n)
		s.setxattr("f", "user.v", value, 0)
		for _, size := range []int{0, 1, n - 1, n, n + 1, 65536} {
			if size >= 0 {
				s.getxattr("f", "user.v", size)
			}
		}
	}
	buf := make([]byte, 3)
	_, err := unix.Llistxattr(s.p("f"), buf)
	s.result(err, "listxattr into too little")
}

func xattrSizesAgain(s *script) {
	for _, size := range []int{0, 3499, 3500, 3501} {
		s.getxattr("f", "user.v", size)
	}
}

func xattrErrors(s *script) {
	s.file("f", nil)
	s.setxattr("f", "user."+strings.Repeat("n", 249), []byte("x"), 0)
	s.setxattr("f", "user."+strings.Repeat("n", 250), []byte("x"), 0)
	s.setxattr("f", "user."+strings.Repeat("n", 251), []byte("x"), 0)
	s.getxattr("f", "user."+strings.Repeat("n", 250), 10)
	s.setxattr("f", "user.large", make([]byte, 65537), 0)
	s.setxattr("f", "user.none", []byte("gone"), 0)
	s.unlink("f")
	s.getxattr("f", "user.none", 10)
}

func xattrHandles(s *script) {
	s.file("f", []byte("x"))
	s.mkdir("d", 0o755)
	for _, name := range []string{"f", "d"} {
		fd := s.open(name, unix.O_RDONLY, 0)
		s.result(unix.Fsetxattr(fd, "user.x", []byte("by handle"), 0), "fsetxattr")
		s.result(unix.Fsetxattr(fd, "trusted.y", []byte("by handle"), unix.XATTR_CREATE), "fsetxattr")
		buf := make([]byte, 100)
		n, err := unix.Fgetxattr(fd, "user.x", buf)
		s.result(err, "fgetxattr %q", buf[:max(n, 0)])
		n, err = unix.Flistxattr(fd, buf)
		s.result(err, "flistxattr %d", n)
		s.result(unix.Fremovexattr(fd, "trusted.y"), "fremovexattr")
		s.close(fd)
		path := s.open(name, unix.O_PATH, 0)
		_, err = unix.Fgetxattr(path, "user.x", buf)
		s.result(err, "fgetxattr of a path handle")
		s.close(path)
	}
	s.link("f", "g")
	s.xattrs("g")
	s.rename("g", "h", 0)
	s.setxattr("h", "user.x", []byte("by the other name"), 0)
	s.xattrs("f")
}

func xattrMany(s *script) {
	s.file("f", nil)
	for i := range 20 {
		s.setxattr("f", fmt.Sprint("user.number", i), fmt.Append(nil, i), 0)
	}
	for i := range 10 {
		s.removexattr("f", fmt.Sprint("user.number", i*2))
	}
	s.xattrs("f")
}
