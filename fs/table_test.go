package fs

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTableShrinks: when the kernel forgets most of many files, the table gives their memory back, and what is left keeps its
// node IDs.
func TestTableShrinks(t *testing.T) {
	root := &inode{kind: unix.S_IFDIR, dir: &directory{fd: -1}}
	tb := newTable(root)
	calls := 0
	tb.smaller = func() { calls++ }
	const files, every = 2 * worthShrinking, 1000
	stat := func(i int) *unix.Stat_t { return &unix.Stat_t{Ino: uint64(i) + 100, Mode: unix.S_IFREG} }
	nodes := make([]*inode, files)
	for i := range nodes {
		nodes[i] = tb.adopt(link{root, "f"}, stat(i))
		tb.hide(nodes[i], unix.Timespec{Sec: 1}, unix.Timespec{Sec: 2})
	}
	kept := map[uint64]*inode{rootID: root}
	for i, n := range slices.Backward(nodes) {
		if i%every == 0 && i < files/2 {
			kept[n.id] = n
		} else if _, gone := tb.forget(n.id, 1); !gone {
			t.Fatalf("inode %d is not forgotten", n.id)
		}
	}
	if calls == 0 {
		t.Fatal("the table was not made smaller")
	}
	if len(tb.nodes) > files/2+every || len(tb.byKey) != len(kept) || len(tb.hidden) != len(kept)-1 {
		t.Errorf("%d node IDs, %d keys, %d hidden times are left of %d files", len(tb.nodes), len(tb.byKey), len(tb.hidden), files)
	}
	for id, n := range kept {
		if tb.get(id) != n {
			t.Errorf("node ID %d has another meaning", id)
		}
	}
	for i := range files {
		n := tb.adopt(link{root, "g"}, stat(files+i))
		if kept[n.id] != nil {
			t.Fatalf("node ID %d is given out twice", n.id)
		}
		kept[n.id] = n
	}
}
