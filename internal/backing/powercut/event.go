package powercut

import "fmt"

// nodeID names an inode in a record. Unlike an inode number it is never used again. The root directory is 0.
type nodeID int

const root nodeID = 0

// node is what never changes of an inode, and what it was when it was first seen.
type node struct {
	ino    uint64 // inode number, as it was shown
	kind   uint32 // S_IFMT bits
	rdev   int
	target string // of a symbolic link
	attr   attributes
	data   sparse // of a regular file
}

// attributes are replaced as a whole.
type attributes struct {
	mode     uint32 // permission bits
	uid, gid uint32
	xattrs   map[string]string
}

// event is one change of the disk, or a sync.
type event interface {
	// metadata reports whether the event has its place in the order of metadata.
	metadata() bool
	String() string
}

type (
	// write puts data into a file.
	write struct {
		node nodeID
		off  int64
		data []byte
	}
	// resize sets the size of a file.
	resize struct {
		node nodeID
		size int64
	}
	// punch makes [off, end) of a file zeros, without a change of size.
	punch struct {
		node     nodeID
		off, end int64
	}
	// setattr replaces the attributes.
	setattr struct {
		node nodeID
		attr attributes
	}
	// enter gives an inode a name.
	enter struct {
		dir  nodeID
		name string
		node nodeID
	}
	// remove takes a name away.
	remove struct {
		dir  nodeID
		name string
	}
	// rename moves a name, or exchanges two.
	rename struct {
		dir       nodeID
		name      string
		toDir     nodeID
		toName    string
		exchanges bool
	}
	// sync makes an inode durable; with dataOnly, what is needed to read its data back.
	sync struct {
		node     nodeID
		dataOnly bool
	}
	// syncAll makes everything durable.
	syncAll struct{}
)

func (write) metadata() bool   { return false }
func (resize) metadata() bool  { return true }
func (punch) metadata() bool   { return true }
func (setattr) metadata() bool { return true }
func (enter) metadata() bool   { return true }
func (remove) metadata() bool  { return true }
func (rename) metadata() bool  { return true }
func (sync) metadata() bool    { return false }
func (syncAll) metadata() bool { return false }

func (e write) end() int64 { return e.off + int64(len(e.data)) }

func (e write) String() string {
	return fmt.Sprintf("write %d: %d bytes at %d", e.node, len(e.data), e.off)
}
func (e resize) String() string  { return fmt.Sprintf("truncate %d to %d", e.node, e.size) }
func (e punch) String() string   { return fmt.Sprintf("punch %d: [%d, %d)", e.node, e.off, e.end) }
func (e setattr) String() string { return fmt.Sprintf("setattr %d", e.node) }
func (e enter) String() string   { return fmt.Sprintf("enter %d/%s = %d", e.dir, short(e.name), e.node) }
func (e remove) String() string  { return fmt.Sprintf("remove %d/%s", e.dir, short(e.name)) }
func (e sync) String() string    { return fmt.Sprintf("sync %d, data only: %v", e.node, e.dataOnly) }
func (syncAll) String() string   { return "syncfs" }

func (e rename) String() string {
	verb := "rename"
	if e.exchanges {
		verb = "exchange"
	}
	return fmt.Sprintf("%s %d/%s to %d/%s", verb, e.dir, short(e.name), e.toDir, short(e.toName))
}

func short(name string) string {
	if len(name) > 40 {
		return name[:37] + "..."
	}
	return name
}

// tree is the names and attributes of all inodes.
type tree struct {
	dirs  map[nodeID]map[string]nodeID
	attrs map[nodeID]attributes
}

func newTree() *tree {
	return &tree{dirs: map[nodeID]map[string]nodeID{root: {}}, attrs: map[nodeID]attributes{}}
}

func (t *tree) clone() *tree {
	c := &tree{dirs: make(map[nodeID]map[string]nodeID, len(t.dirs)), attrs: make(map[nodeID]attributes, len(t.attrs))}
	for id, entries := range t.dirs {
		names := make(map[string]nodeID, len(entries))
		for name, n := range entries {
			names[name] = n
		}
		c.dirs[id] = names
	}
	for id, a := range t.attrs {
		c.attrs[id] = a
	}
	return c
}

// apply makes the change of an event of metadata; sizes and holes are not the tree's.
func (t *tree) apply(e event) {
	switch e := e.(type) {
	case setattr:
		t.attrs[e.node] = e.attr
	case enter:
		t.put(e.dir, e.name, e.node)
	case remove:
		delete(t.dirs[e.dir], e.name)
	case rename:
		moved := t.dirs[e.dir][e.name]
		if e.exchanges {
			t.put(e.dir, e.name, t.dirs[e.toDir][e.toName])
		} else {
			delete(t.dirs[e.dir], e.name)
		}
		t.put(e.toDir, e.toName, moved)
	}
}

func (t *tree) put(dir nodeID, name string, n nodeID) {
	if t.dirs[dir] == nil {
		t.dirs[dir] = map[string]nodeID{}
	}
	t.dirs[dir][name] = n
}

// sameFile reports whether two names are links to one inode, between which a rename does nothing.
func (t *tree) sameFile(e rename) bool {
	to, ok := t.dirs[e.toDir][e.toName]
	return ok && t.dirs[e.dir][e.name] == to
}
