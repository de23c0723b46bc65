package audit

import (
	"errors"
	"fmt"
	"log/syslog"
	"os"

	"golang.org/x/sys/unix"
)

// place takes lines.
type place interface {
	// Write takes one whole line, or fails. With an error, n bytes of it may
	// have arrived.
	Write(line []byte) (n int, err error)
	// Room says why there is no room for more lines, as far as that can be
	// told without writing one.
	Room() error
	Close() error
}

// sink writes lines to a place and remembers what did not arrive. It is guarded
// by Log.mu.
type sink struct {
	place place
	lost  uint64 // records that are missing at the end
	torn  bool   // the last line is not complete
}

// add writes a line, after one that says what is missing before it.
func (s *sink) add(line []byte) error {
	err := s.catchUp()
	if err == nil {
		err = s.write(line)
	}
	if err != nil {
		s.lost++
	}
	return err
}

// catchUp writes that records are missing, if so.
func (s *sink) catchUp() error {
	if s.lost == 0 {
		return nil
	}
	if err := s.write(lostLine(s.lost)); err != nil {
		return err
	}
	s.lost = 0
	return nil
}

func (s *sink) write(line []byte) error {
	if s.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := s.place.Write(line)
	switch {
	case err == nil:
		s.torn = false
	case n > 0:
		s.torn = true
	}
	return err
}

func (s *sink) ready() error {
	if err := s.place.Room(); err != nil {
		return err
	}
	return s.catchUp()
}

// file is a place: a file that is appended to.
type file struct {
	path string // absolute
	f    *os.File
}

func openFile(path string) (*file, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	return &file{path: path, f: f}, nil
}

var errNotRegular = errors.New("not a regular file")

// open refuses what is no regular file: a pipe that nobody reads would make
// everybody wait.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errNotRegular
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, nil
}

func (f *file) Write(line []byte) (int, error) {
	n, err := f.write(line)
	if err != nil {
		err = &os.PathError{Op: "write", Path: f.path, Err: err}
	}
	return n, err
}

// write is one write(2): os.File would go on with the rest of a line after
// others had their turn.
func (f *file) write(line []byte) (int, error) {
	for {
		n, err := unix.Write(int(f.f.Fd()), line)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 0, err
		case n < len(line):
			return n, unix.ENOSPC // what the rest would have met
		}
		return n, nil
	}
}

// reserve is the room in bytes that must be there: for the records of all acts
// that are under way at once.
const reserve = 1 << 20

func (f *file) Room() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.f.Fd()), &st); err != nil {
		return &os.PathError{Op: "statfs", Path: f.path, Err: err}
	}
	free := st.Bavail
	if os.Geteuid() == 0 {
		free = st.Bfree
	}
	if st.Blocks > 0 && free < reserve/uint64(st.Bsize) { // file systems without a size have no blocks
		return &os.PathError{Op: "write", Path: f.path, Err: unix.ENOSPC}
	}
	return nil
}

func (f *file) Close() error { return f.f.Close() }

// system is a place: the local syslog.
type system struct{ *syslog.Writer }

func openSyslog() (system, error) {
	w, err := syslog.New(syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "envfs-audit")
	if err != nil {
		return system{}, fmt.Errorf("audit log: %w", err)
	}
	return system{w}, nil
}

func (s system) Write(line []byte) (int, error) {
	if _, err := s.Writer.Write(line); err != nil {
		return 0, fmt.Errorf("syslog: %w", err)
	}
	return len(line), nil
}

// Room knows nothing: a lost connection shows at the next line.
func (system) Room() error { return nil }
