package fs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func directoryScenarios() []scenario {
	return []scenario{
		{name: "offsets", run: directoryOffsets, after: directoryOffsetsAgain},
		{name: "listing-while-removing", run: directoryShrinks},
		{name: "listing-while-creating", run: directoryGrows},
		{name: "removed", run: directoryRemoved},
		{name: "working-directory", run: directoryWorking},
		{name: "links", run: directoryLinks, after: func(s *script) { s.stat("d"); s.stat("d/e"); s.list("d") }},
		{name: "deep", run: directoryDeep, after: directoryDeepAgain},
		{name: "rewind", run: directoryRewind},
	}
}

// dirent is an entry as getdents64(2) gives it, with the position of the next.
type dirent struct {
	name string
	ino  uint64
	kind byte
	next int64
}

// entries reads an open directory from where it is; small makes that many calls.
func entries(fd, bufSize int) ([]dirent, error) {
	var all []dirent
	buf := make([]byte, bufSize)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			return all, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			size := int(rest[16]) | int(rest[17])<<8
			e := dirent{kind: rest[18], name: strings.TrimRight(string(rest[19:size]), "\x00")}
			for i := range 8 {
				e.ino |= uint64(rest[i]) << (8 * i)
				e.next |= int64(rest[8+i]) << (8 * i)
			}
			if i := strings.IndexByte(e.name, 0); i >= 0 {
				e.name = e.name[:i]
			}
			all, rest = append(all, e), rest[size:]
		}
	}
}

func namesIn(list []dirent) []string {
	var names []string
	for _, e := range list {
		names = append(names, e.name)
	}
	return names
}

func directoryOffsets(s *script) {
	for i := range 300 {
		s.file(fmt.Sprint("f", i), nil)
	}
	s.mkdir("sub", 0o755)
	s.symlink("x", "link")
	s.mknod("fifo", unix.S_IFIFO|0o644, 0)
	directoryOffsetsAgain(s)
}

func directoryOffsetsAgain(s *script) {
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer s.close(fd)
	all, err := entries(fd, 1000)
	s.result(err, "entries %d", len(all))
	names := namesIn(all)
	bad := 0
	for i := 0; i < len(all); i += 7 { // go on after each of them
		if _, err := unix.Seek(fd, all[i].next, unix.SEEK_SET); err != nil {
			s.result(err, "seek")
		}
		rest, err := entries(fd, 4000)
		if err != nil || !slices.Equal(namesIn(rest), names[i+1:]) {
			bad++
		}
	}
	s.note("positions that lead elsewhere: %d", bad)
	var st unix.Stat_t
	wrong := 0
	for _, e := range all {
		if e.name == "." || e.name == ".." {
			continue
		}
		if err := unix.Lstat(s.p(e.name), &st); err != nil || st.Ino != e.ino || byte(st.Mode>>12) != e.kind {
			wrong++
		}
	}
	s.note("entries whose inode or kind is not that of stat: %d", wrong)
	s.note("%v", slices.Contains(names, ".") && slices.Contains(names, ".."))
	slices.Sort(names)
	s.note("%s", digest([]byte(strings.Join(names, ","))))
}

const large = 10_000

func directoryLarge(s *script) {
	for i := range large {
		if err := unix.Mknod(s.p(fmt.Sprint("entry number ", i)), unix.S_IFREG|0o644, 0); err != nil {
			s.result(err, "mknod %d", i)
			return
		}
	}
	directoryLargeCount(s)
}

func directoryLargeCount(s *script) {
	list, err := os.ReadDir(s.dir)
	s.result(err, "%d entries", len(list))
	seen := map[string]bool{}
	for _, e := range list {
		seen[e.Name()] = true
	}
	missing := 0
	for i := range large {
		if !seen[fmt.Sprint("entry number ", i)] {
			missing++
		}
	}
	s.note("%d missing", missing)
}

func directoryLargeAgain(s *script) {
	directoryLargeCount(s)
	s.quiet(os.RemoveAll(s.dir), "remove all")
	s.stat(".")
}

// directoryShrinks removes what it has been given: no entry that stays may be left out, as rm -r relies on.
func directoryShrinks(s *script) {
	for i := range 600 {
		s.file(fmt.Sprint("f", i), nil)
	}
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer s.close(fd)
	buf := make([]byte, 2000)
	seen := map[string]int{}
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			s.result(err, "end")
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			size := int(rest[16]) | int(rest[17])<<8
			name, _, _ := strings.Cut(string(rest[19:size]), "\x00")
			rest = rest[size:]
			if name == "." || name == ".." {
				continue
			}
			seen[name]++
			s.quiet(unix.Unlink(s.p(name)), "unlink")
		}
	}
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	s.note("seen %d, twice %d", len(seen), twice)
	s.list(".")
}

// directoryGrows creates while it lists: what was there from the start is seen exactly once.
func directoryGrows(s *script) {
	for i := range 500 {
		s.file(fmt.Sprint("old", i), nil)
	}
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer s.close(fd)
	buf := make([]byte, 1500)
	seen := map[string]int{}
	for round := 0; round < 1000; round++ {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			s.result(err, "end")
			break
		}
		for rest := buf[:n]; len(rest) > 0; {
			size := int(rest[16]) | int(rest[17])<<8
			name, _, _ := strings.Cut(string(rest[19:size]), "\x00")
			seen[name]++
			rest = rest[size:]
		}
		s.file(fmt.Sprint("new", round), nil)
	}
	wrong := 0
	for i := range 500 {
		if seen[fmt.Sprint("old", i)] != 1 {
			wrong++
		}
	}
	s.note("old entries not seen exactly once: %d", wrong)
	got, err := os.ReadDir(s.dir)
	old := 0
	for _, e := range got {
		if strings.HasPrefix(e.Name(), "old") {
			old++
		}
	}
	s.result(err, "old entries in a new listing: %d", old)
}

func directoryRemoved(s *script) {
	s.mkdir("d", 0o755)
	s.mkdir("d/e", 0o755)
	fd := s.open("d/e", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	s.rmdir("d/e")
	s.fstat(fd)
	list, err := entries(fd, 1000)
	s.result(err, "entries %d", len(list))
	_, err = unix.Openat(fd, "f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.result(err, "create")
	s.result(unix.Mkdirat(fd, "f", 0o755), "mkdir")
	_, err = unix.Openat(fd, "f", unix.O_RDONLY, 0)
	s.result(err, "open")
	_, err = unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	s.result(err, "open parent")
	s.result(unix.Fchmod(fd, 0o700), "fchmod")
	s.result(unix.Fsync(fd), "fsync")
	s.fstat(fd)
	s.close(fd)
	s.rmdir("d")
}

func directoryWorking(s *script) {
	s.mkdir("d", 0o755)
	s.quiet(os.Chdir(s.p("d")), "chdir")
	defer func() { s.quiet(os.Chdir("/"), "chdir back") }()
	s.rename("d", "e", 0)
	s.quiet(os.WriteFile("f", []byte("x"), 0o644), "write")
	s.list("e")
	s.quiet(unix.Unlink("f"), "unlink")
	s.rmdir("e")
	var st unix.Stat_t
	s.result(unix.Stat(".", &st), "stat .")
	s.attributes(&st)
	_, err := unix.Open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.result(err, "create")
	s.result(unix.Stat("f", &st), "stat f")
	_, err = os.ReadDir(".")
	s.result(err, "list")
	s.mkdir("e", 0o755) // the same name, another directory
	_, err = unix.Open("f", unix.O_CREAT|unix.O_RDWR, 0o644)
	s.result(err, "create in the old one")
	s.list("e")
}

func directoryLinks(s *script) {
	s.mkdir("d", 0o755)
	s.stat("d")
	for _, n := range []string{"d/a", "d/b", "d/e"} {
		s.mkdir(n, 0o700)
	}
	s.stat("d")
	s.rmdir("d/a")
	s.file("d/f", nil)
	s.stat("d")
	s.rename("d/b", "d/e/b", 0)
	s.stat("d")
	s.stat("d/e")
}

func directoryDeep(s *script) {
	path := "."
	for i := range 60 {
		path += fmt.Sprint("/level", i)
		s.quiet(unix.Mkdir(s.p(path), 0o755), "mkdir")
	}
	s.file(path+"/f", []byte("deep down"))
	s.content(path + "/f")
}

func directoryDeepAgain(s *script) {
	path := "."
	for i := range 60 {
		path += fmt.Sprint("/level", i)
	}
	s.content(path + "/f")
	s.rename("level0", "moved", 0)
	path = strings.Replace(path, "level0", "moved", 1)
	s.content(path + "/f")
	s.quiet(os.RemoveAll(s.p("moved")), "remove all")
	s.list(".")
}

// directoryRewind lists again through the same handle what has changed meanwhile.
func directoryRewind(s *script) {
	s.file("a", nil)
	s.file("b", nil)
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	defer s.close(fd)
	for _, change := range []func(){func() {}, func() { s.file("c", nil) }, func() { s.unlink("a") }, func() { s.rename("b", "bb", 0) }} {
		change()
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		s.quiet(err, "rewind")
		list, err := entries(fd, 4096)
		names := namesIn(list)
		slices.Sort(names)
		s.result(err, "%v", names)
	}
}
