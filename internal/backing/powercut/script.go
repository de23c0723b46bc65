package powercut

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Script works on a file system as one program would, one call after the other, and remembers what it did and what it was
// promised: what must be there after a power cut at any instant of a Recorder under that file system, and what may be.
//
// The first call that fails ends it; the others do nothing then. See Err.
type Script struct {
	fs  FileSystem
	now func() int
	// log is what the program did, in terms of the file system that it sees: its inodes and events are not the Recorder's.
	log   *Log
	spans []span // of the events of log, in instants of the Recorder
	tree  *tree  // as the program sees it
	open  map[nodeID]File
	err   error
}

// span is when a call began and when it had returned.
type span struct{ from, to int }

// NewScript starts with an empty file system. now tells the present instant.
func NewScript(fs FileSystem, now func() int) *Script {
	return &Script{
		fs: fs, now: now, tree: newTree(), open: map[nodeID]File{},
		log: &Log{nodes: []node{{kind: unix.S_IFDIR}}, start: newTree(), namesOnly: true},
	}
}

// Err returns why the script did not come to its end.
func (s *Script) Err() error { return s.err }

// do makes a call and notes what it meant.
func (s *Script) do(e event, call func() error) {
	if s.err != nil {
		return
	}
	from := s.now()
	if err := call(); err != nil {
		s.err = fmt.Errorf("%v: %w", e, err)
		return
	}
	s.log.events = append(s.log.events, e)
	s.spans = append(s.spans, span{from, s.now()})
	if e.metadata() {
		s.tree.apply(e)
	}
}

// place finds the directory and the last part of a path.
func (s *Script) place(p string) (dir nodeID, name string) {
	dirs, name := path.Split(p)
	for part := range strings.SplitSeq(dirs, "/") {
		if part == "" || s.err != nil {
			continue
		}
		sub, ok := s.tree.dirs[dir][part]
		if !ok {
			s.err = fmt.Errorf("%s: %w", p, unix.ENOENT)
		}
		dir = sub
	}
	return dir, name
}

func (s *Script) find(p string) nodeID {
	if p == "." {
		return root
	}
	dir, name := s.place(p)
	id, ok := s.tree.dirs[dir][name]
	if !ok && s.err == nil {
		s.err = fmt.Errorf("%s: %w", p, unix.ENOENT)
	}
	return id
}

// make makes an entry of a new inode.
func (s *Script) make(p string, n node, call func() error) nodeID {
	dir, name := s.place(p)
	id := nodeID(len(s.log.nodes))
	s.log.nodes = append(s.log.nodes, n)
	s.do(enter{dir: dir, name: name, node: id}, call)
	return id
}

// Create makes an empty file and keeps it open.
func (s *Script) Create(p string) {
	var f File
	id := s.make(p, node{kind: unix.S_IFREG}, func() (err error) {
		f, err = s.fs.Open(p, true)
		return err
	})
	if s.err == nil {
		s.open[id] = f
	}
}

// file returns the file at p, open.
func (s *Script) file(p string) (id nodeID, f File) {
	id = s.find(p)
	if f = s.open[id]; f != nil || s.err != nil {
		return id, f
	}
	if f, s.err = s.fs.Open(p, false); s.err == nil {
		s.open[id] = f
	}
	return id, f
}

// Write writes data at off.
func (s *Script) Write(p string, data []byte, off int64) {
	id, f := s.file(p)
	s.do(write{node: id, off: off, data: slices.Clone(data)}, func() error {
		_, err := f.WriteAt(data, off)
		return err
	})
}

// Append writes data at the end.
func (s *Script) Append(p string, data []byte) { s.Write(p, data, s.Size(p)) }

// Size returns the size of a file as the program has made it.
func (s *Script) Size(p string) int64 {
	id, size := s.find(p), int64(0)
	for _, e := range s.log.events {
		switch e := e.(type) {
		case write:
			if e.node == id {
				size = max(size, e.end())
			}
		case resize:
			if e.node == id {
				size = e.size
			}
		}
	}
	return size
}

// Truncate sets the size.
func (s *Script) Truncate(p string, size int64) {
	id, f := s.file(p)
	s.do(resize{node: id, size: size}, func() error { return f.Truncate(size) })
}

// Sync makes a file durable, but not its name.
func (s *Script) Sync(p string) {
	id, f := s.file(p)
	s.do(sync{node: id}, func() error { return f.Sync() })
}

// Close closes a file. It says nothing about durability.
func (s *Script) Close(p string) {
	id, f := s.file(p)
	if s.err == nil {
		delete(s.open, id)
		s.err = f.Close()
	}
}

// CloseAll closes what is open.
func (s *Script) CloseAll() {
	for id, f := range s.open {
		delete(s.open, id)
		if err := f.Close(); s.err == nil {
			s.err = err
		}
	}
}

// SyncDir makes the names in a directory durable.
func (s *Script) SyncDir(p string) {
	s.do(sync{node: s.find(p)}, func() error { return s.fs.SyncDir(p) })
}

// Mkdir makes a directory.
func (s *Script) Mkdir(p string) {
	s.make(p, node{kind: unix.S_IFDIR}, func() error { return s.fs.Mkdir(p) })
}

// Symlink makes a symbolic link.
func (s *Script) Symlink(target, p string) {
	s.make(p, node{kind: unix.S_IFLNK, target: target}, func() error { return s.fs.Symlink(target, p) })
}

// Link gives a file a second name.
func (s *Script) Link(from, to string) {
	id := s.find(from)
	dir, name := s.place(to)
	s.do(enter{dir: dir, name: name, node: id}, func() error { return s.fs.Link(from, to) })
}

// Rename moves a name, and takes the place of another.
func (s *Script) Rename(from, to string) { s.rename(from, to, 0) }

// Exchange makes two names change places.
func (s *Script) Exchange(a, b string) { s.rename(a, b, unix.RENAME_EXCHANGE) }

func (s *Script) rename(from, to string, flags uint) {
	e := rename{exchanges: flags == unix.RENAME_EXCHANGE}
	e.dir, e.name = s.place(from)
	e.toDir, e.toName = s.place(to)
	if s.tree.sameFile(e) {
		return
	}
	s.do(e, func() error { return s.fs.Rename(from, to, flags) })
}

// Unlink removes a name.
func (s *Script) Unlink(p string) { s.remove(p, s.fs.Unlink) }

// Rmdir removes an empty directory.
func (s *Script) Rmdir(p string) { s.remove(p, s.fs.Rmdir) }

func (s *Script) remove(p string, call func(string) error) {
	dir, name := s.place(p)
	s.do(remove{dir: dir, name: name}, func() error { return call(p) })
}

// Exists reports whether there is something at p.
func (s *Script) Exists(p string) bool {
	dir, name := s.place(p)
	_, ok := s.tree.dirs[dir][name]
	return ok
}
