package fs

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// rootID is the node ID that FUSE reserves for the root.
const rootID = 1

// inode is what envfs knows of one inode of the backing file system that the kernel has heard of. Until the kernel forgets
// it, it keeps its node ID, whatever happens to its names.
type inode struct {
	id         uint64 // node ID; fixed
	generation uint64 // tells apart inodes that had the same node ID; fixed
	key        inodeKey
	kind       uint32 // S_IFMT bits; fixed
	absent     absentAttrs

	// Where the inode is found: a name in a directory. A detached inode has no name left (parent is nil), and is reached
	// through its open File or through pin. Written with the locks of the directories concerned and table.mu held;
	// either of them suffices for reading.
	parent *inode
	name   string // as stored

	lookups uint64       // how often the kernel was told of it; guarded by table.mu
	pin     atomic.Int64 // descriptor + 1 of an inode that has lost all known names and that the kernel may still ask about; 0 for none
	file    atomic.Pointer[volume.File]
	dir     *directory // of a directory, else nil; fixed
}

// special reports whether the inode is neither a regular file nor a directory.
func (n *inode) special() bool { return n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR }

// inodeKey identifies an inode of the backing file systems.
type inodeKey struct {
	dev, ino uint64
}

func (k inodeKey) fileKey() volume.FileKey { return volume.FileKey{Dev: k.dev, Ino: k.ino} }

func keyOf(st *unix.Stat_t) inodeKey { return inodeKey{dev: uint64(st.Dev), ino: st.Ino} }

// link is one name of an inode.
type link struct {
	parent *inode
	name   string
}

// table holds the inodes that the kernel knows.
//
// LOCK ORDER, for all of this package: directory.mu (of two directories the one with the lower node ID first) → table.mu.
// Descriptors of directories are acquired before any directory.mu is taken, because opening one may need the locks of the
// directories above. A directory.mu is held shared by everything that uses a name of the directory, and exclusively by what
// takes a name away; so a name cannot come to mean another inode while it is being used. directory.mu is held across
// system calls on the backing file system, table.mu never. Locks of package volume come after both.
type table struct {
	mu      sync.RWMutex
	nodes   []*inode            // by node ID; guarded by mu
	free    []uint64            // node IDs to use again; guarded by mu
	byKey   map[inodeKey]*inode // all but detached ones; guarded by mu
	aliases map[*inode][]link   // further names of hard-linked inodes; guarded by mu
	hidden  map[*inode]hiddenTime
	known   int    // inodes in nodes; guarded by mu
	peak    int    // the most that known was since the table was last made smaller; guarded by mu
	smaller func() // called, with mu held, when the table was made smaller; fixed
	serial  uint64 // last generation given out; guarded by mu
}

// hiddenTime is a ctime that sealing moved, and what is shown in its place. Guarded by table.mu.
type hiddenTime struct {
	stored, shown unix.Timespec
}

func newTable(root *inode) *table {
	t := &table{
		nodes: make([]*inode, rootID+1), byKey: map[inodeKey]*inode{}, aliases: map[*inode][]link{},
		hidden: map[*inode]hiddenTime{}, smaller: func() {},
	}
	root.id, root.lookups = rootID, 1
	t.nodes[rootID], t.byKey[root.key], t.known = root, root, 1
	return t
}

// get returns the inode with a node ID that came from the kernel, or nil.
func (t *table) get(id uint64) *inode {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if id >= uint64(len(t.nodes)) {
		return nil
	}
	return t.nodes[id]
}

// adopt returns the inode that st describes, found at l, new or known, and counts one more look-up. The caller holds the
// lock of l.parent.
func (t *table) adopt(l link, st *unix.Stat_t) *inode {
	key := keyOf(st)
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[key]
	if n != nil && n.kind != st.Mode&unix.S_IFMT {
		// The inode number was used again behind our back. The kernel keeps the old inode until it forgets it.
		t.detach(n)
		n = nil
	}
	if n == nil {
		n = t.insert(key, st.Mode&unix.S_IFMT)
		t.byKey[key] = n
	}
	n.lookups++
	t.attach(n, l)
	return n
}

// adoptNameless is adopt for an inode that has no name.
func (t *table) adoptNameless(st *unix.Stat_t) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.insert(keyOf(st), st.Mode&unix.S_IFMT)
	n.lookups++
	return n
}

// insert makes an inode. The caller holds mu.
func (t *table) insert(key inodeKey, kind uint32) *inode {
	t.serial++
	n := &inode{key: key, kind: kind, generation: t.serial}
	if kind == unix.S_IFDIR {
		n.dir = &directory{fd: -1}
	}
	if last := len(t.free) - 1; last >= 0 {
		n.id, t.free = t.free[last], t.free[:last]
		t.nodes[n.id] = n
	} else {
		n.id = uint64(len(t.nodes))
		t.nodes = append(t.nodes, n)
	}
	t.known++
	t.peak = max(t.peak, t.known)
	return n
}

// attach records a name of n. The caller holds mu.
func (t *table) attach(n *inode, l link) {
	if n.parent != nil && !t.alive(link{n.parent, n.name}) {
		t.unname(n, link{n.parent, n.name})
	}
	switch {
	case n.parent == nil:
		n.parent, n.name = l.parent, l.name
		t.byKey[n.key] = n
		return
	case n.parent == l.parent && n.name == l.name:
		return
	case n.kind == unix.S_IFDIR: // a directory has one name; it was moved behind our back
		n.parent, n.name = l.parent, l.name
		return
	}
	for _, a := range t.aliases[n] {
		if a == l {
			return
		}
	}
	t.aliases[n] = append(t.aliases[n], l)
}

// find returns the known inode that st describes, or nil.
func (t *table) find(st *unix.Stat_t) *inode {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.byKey[keyOf(st)]
}

// linked records a name that the inode was given. The caller holds the lock of l.parent.
func (t *table) linked(n *inode, l link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attach(n, l)
	n.lookups++
}

// onlyName reports whether l is the one name by which n is known. The caller holds the lock of l.parent.
func (t *table) onlyName(n *inode, l link) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, other := range append(t.aliases[n], link{n.parent, n.name}) {
		if other != l && t.alive(other) {
			return false
		}
	}
	return true
}

// alive reports whether the kernel still knows the directory that a name is in. It may forget one in which it knew a hard
// link, and know the file by another. The caller holds mu.
func (t *table) alive(l link) bool { return l.parent != nil && t.nodes[l.parent.id] == l.parent }

// removed records that a name is gone; last says that it was the last one. The caller holds the lock of l.parent.
func (t *table) removed(n *inode, l link, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unname(n, l)
	if last {
		t.detach(n)
	}
}

// unname forgets one name of n; another known one takes its place. The caller holds mu.
func (t *table) unname(n *inode, l link) {
	others := t.aliases[n]
	if n.parent == l.parent && n.name == l.name {
		n.parent, n.name = nil, ""
		if len(others) > 0 {
			n.parent, n.name = others[0].parent, others[0].name
			others = others[1:]
		}
	} else {
		for i, a := range others {
			if a == l {
				others = append(others[:i:i], others[i+1:]...)
				break
			}
		}
	}
	t.setAliases(n, others)
}

func (t *table) setAliases(n *inode, links []link) {
	if len(links) == 0 {
		delete(t.aliases, n)
		return
	}
	t.aliases[n] = links
}

// detach takes all names away. The caller holds mu.
func (t *table) detach(n *inode) {
	n.parent, n.name = nil, ""
	delete(t.aliases, n)
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
}

// moved records that an inode is now called to and not from any more. The caller holds the locks of both directories.
func (t *table) moved(n *inode, from, to link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unname(n, from)
	t.attach(n, to)
}

// location returns the name by which n is reached; ok is false for a detached inode and for the root.
func (t *table) location(n *inode) (l link, ok bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if l = (link{n.parent, n.name}); t.alive(l) {
		return l, true
	}
	for _, l := range t.aliases[n] {
		if t.alive(l) {
			return l, true
		}
	}
	return link{}, false
}

// forget takes back count look-ups and returns the inode if that were all, and whether it is gone, so that what it holds can be
// closed. While the inode has a File it stays: the file may be waiting for its seal, and whoever finds it anew must use that File, since two that
// seal one header would not know of each other; and the kernel's release may still be on its way in another thread.
func (t *table) forget(id, count uint64) (n *inode, gone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if id >= uint64(len(t.nodes)) || t.nodes[id] == nil || id == rootID {
		return nil, false
	}
	n = t.nodes[id]
	n.lookups -= min(count, n.lookups)
	switch {
	case n.lookups > 0:
		return nil, false
	case n.file.Load() != nil:
		return n, false
	}
	t.remove(n)
	return n, true
}

// closed is called when n has no File any more. It returns n if the kernel had forgotten it before, like forget.
func (t *table) closed(n *inode) *inode {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.lookups > 0 || t.nodes[n.id] != n || n.file.Load() != nil {
		return nil
	}
	t.remove(n)
	return n
}

// remove takes n out of the table. The caller holds mu.
func (t *table) remove(n *inode) {
	t.detach(n)
	delete(t.hidden, n)
	t.nodes[n.id] = nil
	t.free = append(t.free, n.id)
	t.known--
	if t.peak >= worthShrinking && t.known < t.peak/4 {
		t.shrink()
	}
}

// worthShrinking is a number of inodes whose memory, some 10 MiB, is worth giving back.
const worthShrinking = 1 << 16

// shrink makes the table anew, because neither maps nor slices become smaller by themselves. The caller holds mu.
func (t *table) shrink() {
	t.byKey, t.aliases, t.hidden = copied(t.byKey), copied(t.aliases), copied(t.hidden)
	end := len(t.nodes)
	for t.nodes[end-1] == nil {
		end--
	}
	t.nodes = slices.Clone(t.nodes[:end])
	t.free = nil
	for id := end - 1; id > rootID; id-- {
		if t.nodes[id] == nil {
			t.free = append(t.free, uint64(id))
		}
	}
	t.peak = t.known
	t.smaller()
}

// copied returns a map that has room for no more than m holds. maps.Clone would keep the room.
func copied[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// size returns the number of inodes that are known.
func (t *table) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.known
}

// all returns the inodes that are known.
func (t *table) all() []*inode {
	t.mu.RLock()
	defer t.mu.RUnlock()
	nodes := make([]*inode, 0, t.known)
	for _, n := range t.nodes {
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// hide makes ctime show as shown while it is stored, which is what sealing made it.
func (t *table) hide(n *inode, shown, stored unix.Timespec) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h, ok := t.hidden[n]; ok && h.stored == shown {
		shown = h.shown // sealed twice with no change by an application in between
	}
	t.hidden[n] = hiddenTime{stored: stored, shown: shown}
}

// shownCtime returns the ctime to show for n.
func (t *table) shownCtime(n *inode, ctime unix.Timespec) unix.Timespec {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if h, ok := t.hidden[n]; ok && h.stored == ctime {
		return h.shown
	}
	return ctime
}
