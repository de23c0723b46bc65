package fs

import (
	"context"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func nodeScenarios() []scenario {
	return []scenario{
		{name: "symlinks", run: nodesSymlinks, after: nodesSymlinksAgain},
		{name: "devices", run: nodesDevices, after: nodesDevicesAgain},
		{name: "fifo", run: nodesFifo, after: nodesFifoAgain},
		{name: "socket", run: nodesSocket, after: func(s *script) { s.stat("sock") }},
		{name: "hard-links", run: nodesHardLinks, after: nodesHardLinksAgain},
		{name: "hard-links-others", run: nodesHardLinkOthers, after: func(s *script) { s.list("."); s.stat("fifo2"); s.readlink("l2") }},
		{name: "unlink-errors", run: nodesUnlinkErrors},
	}
}

var targets = []string{"a", "/absolute/path", "../up", "with space ", "\xff\xfe", strings.Repeat("t/", 500), strings.Repeat("x", 2999), strings.Repeat("y", 3000)}

func nodesSymlinks(s *script) {
	for i, target := range targets {
		s.symlink(target, string(rune('a'+i)))
	}
	nodesSymlinksAgain(s)
	s.symlink("", "empty")
	s.symlink("x", "a")
	s.symlink("loop", "loop")
	s.open("loop", unix.O_RDONLY, 0)
	s.mkdir("d", 0o755)
	s.file("d/f", []byte("found"))
	s.symlink("d", "to-d")
	s.content("to-d/f")
	s.list("to-d")
	s.stat("to-d")
	s.unlink("to-d/")
	s.rmdir("to-d")
	s.unlink("to-d")
	s.symlink("../symlinks/d/f", "relative")
	f, err := os.ReadFile(s.p("relative"))
	s.result(err, "through the link %q", f)
	s.chown("relative", 5, 6)
	s.stat("relative")
	s.stat("d/f")
	s.readlink("d")
	s.readlink("missing")
	chain := "d/f"
	for i := range 45 {
		name := "chain" + string(rune('A'+i))
		s.symlink(chain, name)
		chain = name
	}
	s.open("chainA", unix.O_RDONLY, 0)
	s.open(chain, unix.O_RDONLY, 0)
}

func nodesSymlinksAgain(s *script) {
	for i := range targets {
		name := string(rune('a' + i))
		s.readlink(name)
		s.stat(name)
	}
}

func nodesDevices(s *script) {
	for _, d := range []struct {
		name string
		mode uint32
		dev  uint64
	}{
		{"null", unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)}, {"zero", unix.S_IFCHR | 0o600, unix.Mkdev(1, 5)},
		{"big", unix.S_IFBLK | 0o640, unix.Mkdev(3000, 70000)}, {"block", unix.S_IFBLK | 0o600, unix.Mkdev(8, 1)},
		{"whiteout", unix.S_IFCHR, 0}, {"bad", 0o170000 | 0o644, 0}, {"dir", unix.S_IFDIR | 0o755, 0},
	} {
		s.mknod(d.name, d.mode, d.dev)
		s.stat(d.name)
	}
	nodesDevicesAgain(s)
}

func nodesDevicesAgain(s *script) {
	for _, name := range []string{"null", "zero", "big", "block", "whiteout"} {
		s.stat(name)
	}
	fd := s.open("zero", unix.O_RDWR, 0)
	s.read(fd, 10)
	s.write(fd, []byte("into nowhere"))
	s.close(fd)
	fd = s.open("null", unix.O_RDWR, 0)
	s.read(fd, 10)
	s.close(fd)
}

// nodesFifo has two processes talk.
func nodesFifo(s *script) {
	s.mknod("fifo", unix.S_IFIFO|0o644, 0)
	nodesFifoAgain(s)
}

func nodesFifoAgain(s *script) {
	s.stat("fifo")
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	other := child(ctx, "fifo-writer", s.dir)
	s.quiet(other.Start(), "start")
	fd := s.open("fifo", unix.O_RDONLY, 0) // waits for the writer
	f := os.NewFile(uintptr(fd), "fifo")
	got, err := io.ReadAll(f)
	s.result(err, "from the other process: %s", digest(got))
	s.quiet(f.Close(), "close")
	s.result(other.Wait(), "the other process")
	s.open("fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
	s.stat("fifo")
}

func fifoWriter(dir string, _ []string) error {
	f, err := os.OpenFile(dir+"/fifo", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(pattern(1, 100_000)); err != nil {
		return err
	}
	return f.Close()
}

func nodesSocket(s *script) {
	// The address of a socket may be short only, so it is reached by a directory descriptor.
	s.quiet(os.Chdir(s.dir), "chdir")
	defer func() { s.quiet(os.Chdir("/"), "chdir back") }()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "sock", Net: "unix"})
	if !s.result(err, "listen") {
		return
	}
	l.SetUnlinkOnClose(false)
	s.stat("sock")
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	defer cancel()
	other := child(ctx, "socket-client", s.dir)
	s.quiet(other.Start(), "start")
	c, err := l.Accept()
	if s.result(err, "accept") {
		got, err := io.ReadAll(c)
		s.result(err, "from the other process: %s", digest(got))
		s.quiet(c.Close(), "close")
	}
	s.result(other.Wait(), "the other process")
	s.quiet(l.Close(), "close")
	_, err = net.ListenUnix("unix", &net.UnixAddr{Name: "sock", Net: "unix"})
	s.result(err, "listen again")
	_, err = net.Dial("unix", "sock")
	s.result(err, "dial what nobody listens to")
}

func socketClient(dir string, _ []string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	c, err := net.Dial("unix", "sock")
	if err != nil {
		return err
	}
	if _, err := c.Write(pattern(2, 50_000)); err != nil {
		return err
	}
	return c.Close()
}

func nodesHardLinks(s *script) {
	s.mkdir("d", 0o755)
	s.file("a", pattern(1, 5000))
	s.link("a", "d/b")
	s.link("d/b", "c")
	s.stat("a")
	s.stat("d/b")
	s.unlink("a") // the name that was looked up first
	s.stat("a")
	s.stat("c")
	s.content("d/b")
	fd := s.open("c", unix.O_RDWR, 0)
	s.pwrite(fd, []byte("through c"), 4090)
	s.unlink("c")
	s.fstat(fd)
	s.content("d/b")
	s.close(fd)
	s.chmod("d/b", 0o600)
	s.link("d/b", "a")
	s.link("a", "d/b")
	s.link("d", "dir")
	s.link("missing", "x")
	s.link("a", "missing/x")
	s.stat("a")
	var a, b unix.Stat_t
	s.quiet(unix.Stat(s.p("a"), &a), "stat")
	s.quiet(unix.Stat(s.p("d/b"), &b), "stat")
	s.note("one inode: %t", a.Ino == b.Ino)
	for i := range 20 {
		s.link("a", "many"+string(rune('a'+i)))
	}
	s.stat("a")
}

// nodesHardLinksAgain looks up only some of the names before others go.
func nodesHardLinksAgain(s *script) {
	s.stat("manyc")
	s.unlink("manyd") // never looked up on this mount
	s.stat("manyc")
	fd := s.open("manyc", unix.O_RDWR, 0)
	s.unlink("manyc") // the only one that was
	s.fstat(fd)
	s.result(unix.Fchmod(fd, 0o640), "fchmod")
	s.pwrite(fd, []byte("again"), 0)
	s.fstat(fd)
	s.close(fd)
	path := s.open("manye", unix.O_PATH, 0)
	s.unlink("manye") // looked up, not open, and others are left
	s.fstat(path)
	s.result(unix.Fchownat(path, "", 3, 4, unix.AT_EMPTY_PATH), "chown")
	s.fstat(path)
	s.close(path)
	s.content("a")
	s.stat("a")
	s.rename("manyf", "manyg", 0)
	s.list(".")
}

func nodesHardLinkOthers(s *script) {
	s.mknod("fifo", unix.S_IFIFO|0o644, 0)
	s.link("fifo", "fifo2")
	s.symlink("target", "l")
	s.link("l", "l2") // the link itself
	s.stat("l2")
	s.unlink("l")
	s.readlink("l2")
	s.unlink("fifo")
	s.stat("fifo2")
	s.result(unix.Linkat(unix.AT_FDCWD, s.p("l2"), unix.AT_FDCWD, s.p("followed"), unix.AT_SYMLINK_FOLLOW), "linkat that follows")
}

func nodesUnlinkErrors(s *script) {
	s.mkdir("d", 0o755)
	s.file("d/f", nil)
	s.unlink("d")
	s.rmdir("d")
	s.rmdir("d/f")
	s.unlink("missing")
	s.rmdir("missing")
	s.unlink("d/f/below")
	s.rmdir("d/.")
	s.rmdir("d/..")
	s.mkdir("d", 0o755)
	s.mkdir("d/f", 0o755)
	s.mkdir("missing/x", 0o755)
	s.mkdir("d/new/", 0o755)
	s.unlink("d/f/")
	s.list("d")
}
