package powercut

import (
	"errors"
	"fmt"
	"io"
	gosync "sync"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// Recorder is a hook of a backing.Store that notes what is done to one directory tree. Calls that change something are made one
// at a time while it watches, so that the record has the order in which they happened.
type Recorder struct {
	// mu is held from Before to After of each call that is noted.
	mu  gosync.Mutex
	log *Log              // guarded by mu
	now *tree             // as it is; guarded by mu
	ids map[uint64]nodeID // of the inodes that exist, by inode number; guarded by mu
	// inodes is what the directory shows, if it is one after a power cut.
	inodes *Inodes
	err    error // the first thing that could not be noted; guarded by mu
}

var _ backing.Observer = (*Recorder)(nil)

// Log is a directory tree as it was, durably, and what was done to it since.
type Log struct {
	dir    string
	nodes  []node
	start  *tree
	events []event
	// namesOnly: that sizes and holes have become durable says nothing about names that changed before.
	namesOnly bool
}

// Len returns the number of events. An instant is a number of events that have happened, 0 to Len.
func (l *Log) Len() int { return len(l.events) }

// Record makes a Recorder for the directory dir, which nobody changes yet. All that is in it counts as durable. The inode
// numbers that it shows are those of inodes, which is nil for a directory that no power cut has left.
func Record(dir string, inodes *Inodes) (*Recorder, error) {
	nodes, start, ids, err := scan(dir)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", dir, err)
	}
	for i := range nodes {
		nodes[i].ino = inodes.shown(nodes[i].ino)
	}
	return &Recorder{log: &Log{dir: dir, nodes: nodes, start: start}, now: start.clone(), ids: ids, inodes: inodes}, nil
}

// Now returns the present instant.
func (r *Recorder) Now() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.log.events)
}

// Log returns the record so far, or what could not be recorded.
func (r *Recorder) Log() (*Log, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := *r.log
	return &l, r.err
}

// isNoted reports whether the call is one that changes or syncs something.
func isNoted(c *backing.Call) bool {
	switch c.Op {
	case backing.OpOpen:
		return c.Name != "" && c.Flags&(unix.O_CREAT|unix.O_TRUNC|(unix.O_TMPFILE&^unix.O_DIRECTORY)) != 0
	case backing.OpRead, backing.OpStat, backing.OpReadlink, backing.OpReaddir, backing.OpGetxattr, backing.OpAccess, backing.OpClose:
		return false
	}
	return true
}

// Before holds up all other changes until After.
func (r *Recorder) Before(c *backing.Call) error {
	if isNoted(c) {
		r.mu.Lock()
	}
	return nil
}

// After notes the call.
func (r *Recorder) After(c *backing.Call, err error) {
	r.inodes.After(c, err)
	if !isNoted(c) {
		return
	}
	defer r.mu.Unlock()
	if err != nil && (c.Op != backing.OpWrite || c.Size == 0) {
		return
	}
	if err := r.note(c); err != nil {
		r.err = errors.Join(r.err, fmt.Errorf("%s %q: %w", c.Op, c.Name, err))
	}
}

func (r *Recorder) note(c *backing.Call) error {
	switch c.Op {
	case backing.OpOpen:
		return r.opened(c)
	case backing.OpWrite, backing.OpTruncate, backing.OpFallocate, backing.OpSync:
		return r.changed(c)
	case backing.OpSyncFS:
		r.add(syncAll{})
		return nil
	case backing.OpSetattr, backing.OpXattr:
		return r.attributes(c)
	case backing.OpMkdir, backing.OpMknod, backing.OpSymlink:
		return r.made(c.FD, c.Name)
	case backing.OpLink, backing.OpUnlink, backing.OpRename:
		return r.named(c)
	}
	return errors.New("unknown call")
}

func (r *Recorder) add(e event) {
	r.log.events = append(r.log.events, e)
	if e.metadata() {
		r.now.apply(e)
	}
}

// changed notes a call on an open file or directory.
func (r *Recorder) changed(c *backing.Call) error {
	id, err := r.id(c.FD)
	if err != nil {
		return err
	}
	switch c.Op {
	case backing.OpWrite:
		r.add(write{node: id, off: c.Offset, data: append([]byte(nil), c.Data[:c.Size]...)})
	case backing.OpTruncate:
		r.add(resize{node: id, size: c.Size})
	case backing.OpSync:
		r.add(sync{node: id, dataOnly: c.Flags&backing.DataOnly != 0})
	default:
		return r.allocated(c, id)
	}
	return nil
}

func (r *Recorder) allocated(c *backing.Call, id nodeID) error {
	switch c.Flags {
	case unix.FALLOC_FL_KEEP_SIZE: // nothing that can be seen
		return nil
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		r.add(punch{node: id, off: c.Offset, end: c.Offset + c.Size})
		return nil
	}
	return fmt.Errorf("mode %#x", c.Flags)
}

func (r *Recorder) opened(c *backing.Call) error {
	if c.Flags&unix.O_TMPFILE == unix.O_TMPFILE {
		_, err := r.adopt(c.Opened, "")
		return err
	}
	dir, err := r.id(c.FD)
	if err != nil {
		return err
	}
	id, exists := r.now.dirs[dir][c.Name]
	switch {
	case !exists && c.Flags&unix.O_CREAT != 0:
		return r.made(c.FD, c.Name)
	case exists && c.Flags&unix.O_TRUNC != 0:
		r.add(resize{node: id})
	}
	return nil
}

// made notes the new entry name in the directory fd.
func (r *Recorder) made(fd int, name string) error {
	dir, err := r.id(fd)
	if err != nil {
		return err
	}
	id, err := r.adopt(fd, name)
	if err != nil {
		return err
	}
	r.add(enter{dir: dir, name: name, node: id})
	return nil
}

// adopt makes an inode known that did not exist before.
func (r *Recorder) adopt(fd int, name string) (nodeID, error) {
	n, ino, err := look(fd, name)
	if err != nil {
		return 0, err
	}
	id := nodeID(len(r.log.nodes))
	n.ino = r.inodes.shown(ino)
	r.log.nodes = append(r.log.nodes, n)
	r.ids[ino] = id
	r.now.attrs[id] = n.attr
	return id, nil
}

// attributes notes what they are after the call, which says only that they change.
func (r *Recorder) attributes(c *backing.Call) error {
	n, ino, err := look(c.FD, c.Name)
	if err != nil {
		return err
	}
	id, ok := r.ids[ino]
	if !ok {
		return errUnknown
	}
	r.add(setattr{node: id, attr: n.attr})
	return nil
}

func (r *Recorder) named(c *backing.Call) error {
	dir, err := r.id(c.FD)
	if err != nil {
		return err
	}
	if c.Op == backing.OpUnlink {
		r.add(remove{dir: dir, name: c.Name})
		return nil
	}
	to, err := r.id(c.FD2)
	if err != nil {
		return err
	}
	if c.Op == backing.OpLink {
		n := dir // what the descriptor leads to, if there is no name
		if c.Name != "" {
			n = r.now.dirs[dir][c.Name]
		}
		r.add(enter{dir: to, name: c.Name2, node: n})
		return nil
	}
	e := rename{dir: dir, name: c.Name, toDir: to, toName: c.Name2, exchanges: c.Flags&unix.RENAME_EXCHANGE != 0}
	if !r.now.sameFile(e) {
		r.add(e)
	}
	return nil
}

var errUnknown = errors.New("not in the directory that is recorded")

func (r *Recorder) id(fd int) (nodeID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	id, ok := r.ids[st.Ino]
	if !ok {
		return 0, errUnknown
	}
	return id, nil
}

// WriteLog lists the events of [from, to), for a message.
func (l *Log) WriteLog(w io.Writer, from, to int) {
	for i := max(0, from); i < min(to, len(l.events)); i++ {
		fmt.Fprintf(w, "%6d %v\n", i, l.events[i])
	}
}
