package fs

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

func nameScenarios() []scenario {
	again := func(s *script) { s.list("."); namesStat(s) }
	return []scenario{
		{name: "odd", run: namesOdd, after: again},
		{name: "too-long", run: namesTooLong},
		{name: "long", run: namesLong, after: func(s *script) { s.list("."); s.list("d"); s.content(longName('c', 255)) }},
		{name: "long-tree", run: namesLongTree, after: namesLongTreeGone},
		{name: "long-others", run: namesLongOthers, after: func(s *script) { s.list(".") }},
	}
}

// longName is a name of n bytes that begins with c.
func longName(c byte, n int) string { return string(c) + strings.Repeat("n", n-1) }

var oddNames = []string{
	"envfs.json", "envfs.long.x", "envfs.name.x", "envfs.", "envfs.tmp", " leading", "trailing ", "trailing.", "new\nline", "tab\t",
	"-rf", "*", "...", "..a", "\xff\xfe not UTF-8", "\x01\x7f", "ünïcode", "u\u0308", "日本語", "🙂", "a:b", `back\slash`, "CON", "a%2fb", "'\"`",
	longName('t', 174), longName('t', 175), longName('t', 176), longName('t', 177), longName('t', 254), longName('t', 255),
	strings.Repeat("日", 85), strings.Repeat("\xff", 255),
}

func namesOdd(s *script) {
	for i, name := range oddNames {
		s.file(name, fmt.Appendf(nil, "file %d", i))
	}
	s.list(".")
	namesStat(s)
}

func namesStat(s *script) {
	for _, name := range oddNames {
		s.content(name)
		s.stat(name)
	}
	s.stat(longName('u', 255))
	s.stat("ENVFS.JSON")
}

func namesTooLong(s *script) {
	for _, n := range []int{256, 300, 1000} {
		name := longName('x', n)
		s.file("f", nil)
		s.stat(name)
		s.open(name, unix.O_CREAT|unix.O_RDWR, 0o644)
		s.open(name, unix.O_RDONLY, 0)
		s.mkdir(name, 0o755)
		s.mknod(shorten(name)+name, unix.S_IFIFO|0o644, 0)
		s.symlink("f", name)
		s.link("f", name)
		s.rename("f", name, 0)
		s.rename(name, "f", 0)
		s.unlink(name)
		s.rmdir(name)
	}
	s.list(".")
}

func namesLong(s *script) {
	a, b, c := longName('a', 255), longName('b', 200), longName('c', 255)
	s.file(a, []byte("a"))
	s.file(b, []byte("b"))
	s.file("short", []byte("s"))
	s.rename(a, b, unix.RENAME_NOREPLACE)
	s.rename(a, b, unix.RENAME_EXCHANGE)
	s.content(a)
	s.content(b)
	s.rename(a, b, 0) // over another long one
	s.list(".")
	s.rename(b, c, 0) // to a free one
	s.rename(c, "from-long", 0)
	s.list(".")
	s.rename("from-long", c, 0)
	s.rename(c, "short", unix.RENAME_EXCHANGE)
	s.content(c)
	s.content("short")
	s.mkdir("d", 0o755)
	s.rename(c, "d/"+a, 0)
	s.rename("d/"+a, c, 0)
	s.rename("short", "d/"+a, 0)
	s.list("d")
	s.rename("missing", a, 0)
	s.link(c, a)
	s.unlink(c)
	s.content(a)
	s.rename(a, c, 0)
	s.link(c, a)
	s.rename(a, c, 0) // two names of one file: nothing happens
	s.list(".")
	s.unlink(a)
	s.unlink(a)
	s.open(c, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	s.content(c)
	s.list(".")
}

func namesLongTree(s *script) {
	path := "."
	for i := range 4 {
		path += "/" + longName(byte('a'+i), 255-i)
		s.mkdir(path, 0o755)
	}
	s.file(path+"/f", []byte("deep"))
	s.content(path + "/f")
	s.rename("./"+longName('a', 255), longName('z', 200), 0)
	s.mkdir(longName('y', 200), 0o755)
	s.rename(longName('z', 200), longName('y', 200), 0) // over an empty directory
	s.rmdir(longName('y', 200))
	s.rename(longName('y', 200), longName('a', 255), 0)
}

func namesLongTreeGone(s *script) {
	path := "."
	var paths []string
	for i := range 4 {
		path += "/" + longName(byte('a'+i), 255-i)
		paths = append([]string{path}, paths...)
	}
	s.content(path + "/f")
	s.unlink(path + "/f")
	for _, p := range paths {
		s.rmdir(p)
	}
	s.list(".")
}

func namesLongOthers(s *script) {
	s.symlink("target", longName('s', 255))
	s.mknod(longName('p', 200), unix.S_IFIFO|0o600, 0)
	s.mkdir(longName('d', 200), 0o755)
	s.mkdir(longName('d', 200), 0o755)
	s.symlink("target", longName('d', 200))
	s.rmdir(longName('s', 255))
	s.unlink(longName('d', 200))
	fd := s.open(".", unix.O_TMPFILE|unix.O_RDWR, 0o600)
	s.result(unix.Linkat(fd, "", unix.AT_FDCWD, s.p(longName('t', 255)), unix.AT_EMPTY_PATH), "linkat")
	s.result(unix.Linkat(fd, "", unix.AT_FDCWD, s.p(longName('t', 255)), unix.AT_EMPTY_PATH), "linkat again")
	s.close(fd)
	s.list(".")
	for _, n := range []struct {
		name string
		dir  bool
	}{{longName('s', 255), false}, {longName('p', 200), false}, {longName('d', 200), true}} {
		if n.dir {
			s.rmdir(n.name)
		} else {
			s.unlink(n.name)
		}
	}
	s.list(".")
}
