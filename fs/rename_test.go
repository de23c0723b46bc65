package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

func renameScenarios() []scenario {
	tree := func(s *script) { s.list("."); s.list("d"); s.list("e") }
	return []scenario{
		{name: "matrix", run: renameMatrix},
		{name: "open", run: renameOpen, after: func(s *script) { s.content("a"); s.list(".") }},
		{name: "directories", run: renameDirectories, after: tree},
		{name: "exchange", run: renameExchange, after: tree},
		{name: "hard-links", run: renameHardLinks, after: tree},
		{name: "editor", run: renameEditor, after: func(s *script) { s.content("doc"); s.list(".") }},
		{name: "swap-forth-and-back", run: renameSwaps, after: tree},
	}
}

// renameMatrix renames every kind over every kind, with every flag.
func renameMatrix(s *script) {
	kinds := []string{"file", "empty-dir", "full-dir", "link", "fifo", "none"}
	for _, from := range kinds {
		for _, to := range kinds {
			for _, flags := range []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE} {
				s.note("%s over %s", from, to)
				s.make(from, "from")
				s.make(to, "to")
				s.rename("from", "to", flags)
				s.stat("from")
				s.stat("to")
				s.list(".")
				s.quiet(os.RemoveAll(s.p("from")), "remove")
				s.quiet(os.RemoveAll(s.p("to")), "remove")
			}
		}
	}
}

// make makes an entry of the given kind.
func (s *script) make(kind, name string) {
	switch kind {
	case "file":
		s.file(name, []byte("content"))
	case "empty-dir":
		s.quiet(unix.Mkdir(s.p(name), 0o755), "mkdir")
	case "full-dir":
		s.quiet(unix.Mkdir(s.p(name), 0o755), "mkdir")
		s.file(name+"/inside", nil)
	case "link":
		s.quiet(unix.Symlink("nowhere", s.p(name)), "symlink")
	case "fifo":
		s.quiet(unix.Mkfifo(s.p(name), 0o644), "mkfifo")
	}
}

func renameOpen(s *script) {
	s.file("a", pattern(1, 5000))
	s.file("b", pattern(2, 6000))
	a, b := s.open("a", unix.O_RDWR, 0), s.open("b", unix.O_RDWR, 0)
	s.pwrite(b, []byte("not written back"), 100)
	s.rename("b", "a", 0)
	s.fstat(a)
	s.fstat(b)
	s.pread(a, 7000, 0)
	s.pread(b, 7000, 0)
	s.pwrite(a, []byte("to the one that was replaced"), 10)
	s.pwrite(b, []byte("to the one that replaced it"), 10)
	s.content("a")
	s.close(a)
	s.close(b)
	s.content("a")
	s.stat("b")
}

func renameDirectories(s *script) {
	for _, d := range []string{"d", "d/sub", "d/sub/deep", "e"} {
		s.mkdir(d, 0o755)
	}
	s.file("d/sub/deep/f", []byte("f"))
	s.rename("d", "d/sub", 0)
	s.rename("d", "d/sub/deep/new", 0)
	s.rename("d/sub", "d", 0)
	s.rename("d/sub/deep", "d/sub", 0)
	s.rename("d", "d", 0)
	s.rename("d/sub", "d/sub", unix.RENAME_NOREPLACE)
	s.rename("d", "d/sub", unix.RENAME_EXCHANGE)
	s.rename("d/.", "x", 0)
	s.rename("d/sub/..", "x", 0)
	s.rename("d", "e/.", 0)
	s.rename("d/sub", "e/sub", 0)
	s.content("e/sub/deep/f")
	s.stat("d")
	s.stat("e")
	s.rename("e/sub/deep/f", "d/f", 0)
	s.rename("missing/f", "d/x", 0)
	s.rename("d/f", "missing/x", 0)
	s.rename("d/f/below", "d/x", 0)
	s.rename("d/f", "d/f/below", 0)
	s.rename("d", "e/dd", 0)
	s.rename("e/dd", "d", 0)
	s.list("e/sub")
}

func renameExchange(s *script) {
	s.mkdir("d", 0o755)
	s.mkdir("e", 0o755)
	s.file("d/f", []byte("file"))
	s.mkdir("e/dir", 0o755)
	s.file("e/dir/inside", []byte("inside"))
	s.rename("d/f", "e/dir", unix.RENAME_EXCHANGE)
	s.list("d")
	s.list("e")
	s.content("d/f/inside")
	s.content("e/dir")
	s.stat("d")
	s.stat("e")
	s.rename("d/f", "e/missing", unix.RENAME_EXCHANGE)
	s.rename("d/f", "d/f/inside", unix.RENAME_EXCHANGE)
	s.symlink("x", "d/l")
	s.rename("d/l", "e/dir", unix.RENAME_EXCHANGE)
	s.readlink("e/dir")
	s.rename("e/dir", "e/dir", unix.RENAME_EXCHANGE)
}

func renameHardLinks(s *script) {
	s.mkdir("d", 0o755)
	s.mkdir("e", 0o755)
	s.file("d/a", []byte("one file"))
	s.link("d/a", "e/b")
	s.link("d/a", "d/c")
	s.rename("d/a", "e/b", 0) // the same file: nothing happens
	s.rename("d/a", "e/b", unix.RENAME_EXCHANGE)
	s.rename("d/a", "d/c", unix.RENAME_NOREPLACE)
	s.stat("d/a")
	s.file("d/other", []byte("other"))
	s.rename("d/other", "d/c", 0) // takes one of three names away
	s.stat("d/a")
	s.content("d/c")
	s.rename("e/b", "e/moved", 0)
	s.unlink("d/a")
	s.content("e/moved")
	s.stat("e/moved")
	s.file("e/moved", []byte("changed"))
	s.content("e/moved")
}

// renameEditor saves as editors do.
func renameEditor(s *script) {
	s.file("doc", pattern(1, 5000))
	for i := range 5 {
		fd := s.open("doc.tmp", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		s.write(fd, pattern(uint64(i), 4000+i*1000))
		s.result(unix.Fsync(fd), "fsync")
		s.result(unix.Fchmod(fd, 0o644), "fchmod")
		s.close(fd)
		s.link("doc", "doc~")
		s.rename("doc.tmp", "doc", 0)
		s.content("doc")
		s.content("doc~")
		s.unlink("doc~")
	}
}

func renameSwaps(s *script) {
	s.mkdir("d", 0o755)
	s.mkdir("e", 0o755)
	s.file("d/1", []byte("one"))
	s.file("d/2", []byte("two"))
	one, two := s.open("d/1", unix.O_RDWR, 0), s.open("d/2", unix.O_RDWR, 0)
	for _, r := range [][2]string{{"d/1", "t"}, {"d/2", "d/1"}, {"t", "d/2"}, {"d/1", "e/1"}, {"d/2", "d/1"}, {"e/1", "d/2"}, {"d/2", "e/2"}, {"e/2", "d/1"}} {
		s.rename(r[0], r[1], 0)
		s.pread(one, 10, 0)
		s.pread(two, 10, 0)
		s.fstat(one)
		s.fstat(two)
		s.list("d")
		s.list("e")
	}
	s.close(one)
	s.close(two)
	s.content("d/1")
}
