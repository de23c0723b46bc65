package integration

import (
	"testing"

	"golang.org/x/sys/unix"
)

// copyModes are the mounts on which copies are tested. With allow_other the kernel checks permissions and ACLs.
func copyModes(t *testing.T, test func(t *testing.T, r *rig)) {
	for name, flags := range map[string][]string{"private": nil, "allow_other": {"-o", "allow_other"}, "writethrough": {"--cache", "writethrough"}} {
		t.Run(name, func(t *testing.T) {
			if name == "allow_other" {
				needRoot(t)
			}
			r := newRig(t)
			r.mountFlags = append(r.mountFlags, flags...)
			r.mount()
			makeTree(t, r.below("tree"))
			test(t, r)
		})
	}
}

// TestTreeMade makes the tree on the mount itself, by system calls.
func TestTreeMade(t *testing.T) {
	copyModes(t, func(t *testing.T, r *rig) {
		makeTree(t, r.path("tree"))
		sameTree(t, snapshot(t, r.below("tree")), snapshot(t, r.path("tree")))
	})
}

// TestCopy copies a tree in by cp -a, and out again after a remount.
func TestCopy(t *testing.T) {
	copyModes(t, func(t *testing.T, r *rig) {
		want := snapshot(t, r.below("tree"))
		r.sh(`cp -a --sparse=always "$BASE/tree" .`)
		sameTree(t, want, snapshot(t, r.path("tree")))
		r.remount()
		sameTree(t, want, snapshot(t, r.path("tree")))
		r.sh(`cp -a --sparse=auto tree "$BASE/back"; diff -r --no-dereference --exclude=fifo "$BASE/tree" "$BASE/back"`)
		sameTree(t, want, snapshot(t, r.below("back")))
		for _, copied := range []string{r.path("tree/sparse"), r.below("back/sparse")} {
			isSparse(t, copied)
		}
	})
}

// TestTar packs a tree on the mount with all that tar can keep, and unpacks it on the mount and beside it.
func TestTar(t *testing.T) {
	need(t, "tar")
	copyModes(t, func(t *testing.T, r *rig) {
		want := snapshot(t, r.below("tree"))
		r.sh(`all=(--xattrs --acls --xattrs-include='user.*' --sparse)
			tar "${all[@]}" -C "$BASE" -cf in.tar tree
			mkdir one; tar "${all[@]}" -C one -xpf in.tar
			tar "${all[@]}" -C one -czf out.tar.gz tree
			mkdir "$BASE/back"; tar "${all[@]}" -C "$BASE/back" -xpf out.tar.gz
			tar "${all[@]}" -C "$BASE" -df out.tar.gz`)
		sameTree(t, want, snapshot(t, r.path("one/tree")))
		sameTree(t, want, snapshot(t, r.below("back/tree")))
		r.remount()
		sameTree(t, want, snapshot(t, r.path("one/tree")))
		isSparse(t, r.path("one/tree/sparse"))
		isSparse(t, r.below("back/tree/sparse"))
	})
}

// isSparse checks that a file with 5,000 bytes in 8 MiB has not been filled with zeros.
func isSparse(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 > 1<<20 {
		t.Errorf("%s: %d bytes take %d on disk: its hole is gone", path, st.Size, st.Blocks*512)
	}
}
