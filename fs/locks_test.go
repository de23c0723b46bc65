package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func lockScenarios() []scenario {
	return []scenario{
		{name: "flock", run: lockFlock},
		{name: "fcntl", run: lockFcntl},
		{name: "ofd", run: lockOFD},
		{name: "mixed", run: lockMixed},
		{name: "holder-dies", run: lockHolderDies},
		{name: "directory", run: lockDirectory},
	}
}

// holder is another process that holds a lock.
type holder struct {
	s    *script
	in   io.WriteCloser
	wait func() error
	kill func() error
}

// holdLock starts a process that takes a lock on name and returns when it has it.
func (s *script) holdLock(kind, name string) *holder {
	ctx, cancel := context.WithTimeout(context.Background(), childTime)
	cmd := child(ctx, "lock-holder", s.dir, kind, name)
	in, err := cmd.StdinPipe()
	s.quiet(err, "pipe")
	out, err := cmd.StdoutPipe()
	s.quiet(err, "pipe")
	s.quiet(cmd.Start(), "start")
	line, err := bufio.NewReader(out).ReadString('\n')
	s.result(err, "other process: %s %s", kind, line)
	return &holder{s: s, in: in, kill: cmd.Process.Kill, wait: func() error { defer cancel(); return cmd.Wait() }}
}

func (h *holder) release() {
	h.s.quiet(h.in.Close(), "close")
	h.s.result(h.wait(), "other process ended")
}

// lockHolder is the other process: it holds the lock until its input ends.
func lockHolder(dir string, args []string) error {
	fd, err := unix.Open(dir+"/"+args[1], unix.O_RDWR, 0)
	if errors.Is(err, unix.EISDIR) {
		fd, err = unix.Open(dir+"/"+args[1], unix.O_RDONLY, 0)
	}
	if err != nil {
		return err
	}
	if err := takeLock(fd, args[0], false); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, unix.Close(fd))
}

// takeLock takes a lock of a kind on bytes 100 to 199, or on all for flock.
func takeLock(fd int, kind string, wait bool) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: 100, Len: 100}
	how, cmd := unix.LOCK_EX, unix.F_SETLK
	switch kind {
	case "flock-shared":
		how = unix.LOCK_SH
		fallthrough
	case "flock":
		if !wait {
			how |= unix.LOCK_NB
		}
		return again(func() error { return unix.Flock(fd, how) })
	case "fcntl-read", "ofd-read":
		l.Type = unix.F_RDLCK
	}
	if kind == "ofd" || kind == "ofd-read" {
		cmd = unix.F_OFD_SETLK
	}
	if wait {
		cmd++ // F_SETLKW and F_OFD_SETLKW follow
	}
	return again(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &l) })
}

func (s *script) lock(fd int, kind string) { s.result(takeLock(fd, kind, false), "lock %s", kind) }

// waitLock waits for a lock that h holds; it must come when h lets go, and not before.
func (s *script) waitLock(fd int, kind string, h *holder) {
	got := make(chan error, 1)
	go func() { got <- takeLock(fd, kind, true) }()
	select {
	case err := <-got:
		s.result(err, "lock %s although it was held", kind)
		return
	case <-time.After(50 * time.Millisecond): // long enough to get it, if it could be had
	}
	h.release()
	select {
	case err := <-got:
		s.result(err, "lock %s once it was free", kind)
	case <-time.After(patience):
		s.note("lock %s never came", kind)
	}
}

func lockFlock(s *script) {
	s.file("f", []byte("x"))
	fd, other := s.open("f", unix.O_RDWR, 0), s.open("f", unix.O_RDONLY, 0)
	h := s.holdLock("flock", "f")
	s.lock(fd, "flock")
	s.lock(fd, "flock-shared")
	s.waitLock(fd, "flock", h)
	s.lock(other, "flock-shared") // handles of one process conflict
	s.result(unix.Flock(fd, unix.LOCK_UN), "unlock")
	s.lock(other, "flock-shared")
	h = s.holdLock("flock-shared", "f")
	s.lock(fd, "flock")
	s.lock(fd, "flock-shared")
	h.release()
	s.close(fd)
	s.lock(other, "flock") // upgrade
	s.close(other)
}

func lockFcntl(s *script) {
	s.file("f", pattern(1, 1000))
	fd := s.open("f", unix.O_RDWR, 0)
	h := s.holdLock("fcntl", "f")
	for _, r := range []struct{ start, n int64 }{{0, 100}, {0, 101}, {199, 1}, {200, 0}, {0, 0}, {150, 5}} {
		l := unix.Flock_t{Type: unix.F_WRLCK, Start: r.start, Len: r.n}
		err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &l)
		s.result(err, "getlk %d %d -> type %d from %d, %d long", r.start, r.n, l.Type, l.Start, l.Len)
		l = unix.Flock_t{Type: unix.F_WRLCK, Start: r.start, Len: r.n}
		s.result(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l), "setlk %d %d", r.start, r.n)
		l.Type = unix.F_UNLCK
		s.result(unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &l), "unlock %d %d", r.start, r.n)
	}
	s.lock(fd, "fcntl-read")
	s.waitLock(fd, "fcntl", h)
	other := s.open("f", unix.O_RDWR, 0)
	s.lock(other, "fcntl") // the same process
	s.close(other)         // gives all locks of the process back
	h = s.holdLock("fcntl", "f")
	h.release()
	h = s.holdLock("fcntl-read", "f")
	s.lock(fd, "fcntl-read")
	s.lock(fd, "fcntl")
	h.release()
	s.close(fd)
}

func lockOFD(s *script) {
	s.file("f", pattern(1, 1000))
	a, b := s.open("f", unix.O_RDWR, 0), s.open("f", unix.O_RDWR, 0)
	s.lock(a, "ofd")
	s.lock(b, "ofd") // handles of one process conflict
	s.lock(b, "ofd-read")
	s.close(a)
	s.lock(b, "ofd")
	s.close(b)
	a = s.open("f", unix.O_RDWR, 0)
	h := s.holdLock("ofd", "f")
	s.lock(a, "ofd")
	s.lock(a, "fcntl")
	s.waitLock(a, "ofd", h)
	dup, err := unix.Dup(a)
	s.result(err, "dup")
	s.close(a)
	b = s.open("f", unix.O_RDWR, 0)
	s.lock(b, "ofd") // the copy still holds it
	s.close(dup)
	s.lock(b, "ofd")
	s.close(b)
}

func lockMixed(s *script) {
	s.file("f", pattern(1, 1000))
	fd := s.open("f", unix.O_RDWR, 0)
	h := s.holdLock("flock", "f")
	s.lock(fd, "fcntl") // the two kinds do not see each other
	h.release()
	h = s.holdLock("ofd-read", "f")
	s.lock(fd, "flock")
	s.rename("f", "g", 0)
	s.lock(fd, "fcntl")
	s.unlink("g")
	s.lock(fd, "fcntl")
	h.release()
	s.lock(fd, "fcntl")
	s.close(fd)
}

func lockHolderDies(s *script) {
	for _, kind := range []string{"flock", "fcntl", "ofd"} {
		s.file("f", pattern(1, 1000))
		fd := s.open("f", unix.O_RDWR, 0)
		h := s.holdLock(kind, "f")
		s.lock(fd, kind)
		s.quiet(h.kill(), "kill")
		_ = h.wait() // killed
		s.result(takeLock(fd, kind, true), "lock %s of the dead", kind)
		s.close(fd)
	}
}

func lockDirectory(s *script) {
	s.mkdir("d", 0o755)
	fd := s.open("d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	h := s.holdLock("flock", "d")
	s.lock(fd, "flock")
	h.release()
	s.lock(fd, "flock")
	s.lock(fd, "fcntl-read")
	s.close(fd)
}
