package integration

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "make testdata/format1 anew, which gives up that older volumes are read")

const format1 = "testdata/format1"

// makeFormat1 writes what the frozen volume holds: a file of each kind and around each edge of the format.
func makeFormat1(t *testing.T, root string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	check(os.MkdirAll(at("dir/deeper"), 0o750))
	for name, size := range map[string]int{
		"empty": 0, "one": 1, "block-less-one": 4095, "block": 4096, "block-and-one": 4097, "blocks": 100 << 10,
		"dir/deeper/" + strings.Repeat("n", 200): 10, "dir/ünï ★": 20,
	} {
		check(os.WriteFile(at(name), noise(size, uint64(size)), 0o640))
	}
	f, err := os.Create(at("sparse"))
	check(err)
	check(f.Truncate(1 << 20))
	_, err = f.WriteAt(noise(5000, 77), 300_000)
	check(err)
	check(f.Close())
	check(os.Symlink("../block", at("dir/symlink")))
	check(os.Link(at("block-and-one"), at("dir/hardlink")))
	check(setXattr(at("one"), "user.comment", "a value"))
	check(setXattr(at("dir"), "user.empty", ""))
	check(setOldTimes(root))
}

// TestFormat1 reads a volume that was made when format 1 was settled.
func TestFormat1(t *testing.T) {
	r := newPlace(t)
	r.pass = r.below("format1/passphrase")
	r.mkdir(r.below("format1"))
	r.mountFlags = []string{"--passphrase-file", r.pass}
	if *update {
		updateFormat1(r)
	}
	r.write(r.pass, r.read(format1+"/passphrase"))
	unpack(t, format1+"/volume.tar", r.dir)
	var want map[string]entry
	if err := json.Unmarshal([]byte(r.read(format1+"/manifest.json")), &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != 14 {
		t.Fatalf("the manifest names %d entries only", len(want))
	}

	unchanged(t, r.dir, func() {
		r.mount("-o", "ro")
		sameTree(t, want, withoutOwners(snapshot(t, r.mnt)))
		r.umount()
	})
	i := r.info(r.dir).Volume
	if i.SlotSize != slotSize || i.Keyring.Type != "local" || i.KEKVersion != 1 || i.Tree.Files != 10 || i.Tree.Directories != 2 || i.Tree.Foreign != 0 {
		t.Errorf("%+v", i)
	}
	// And it goes on being used.
	r.mount()
	r.sh(`find . -type f | while read -r f; do printf appended >> "$f"; done; echo new > new; mv dir moved; rm empty`)
	r.remount()
	for _, name := range []string{"one", "block-less-one", "block", "block-and-one", "blocks"} {
		content := noise(int(want[name].Size), uint64(want[name].Size))
		got := r.read(r.path(name))
		if !strings.HasPrefix(got, string(content)) || !strings.HasSuffix(got, "appended") {
			t.Errorf("%s: after appending, %d bytes or others", name, len(got))
		}
	}
}

// updateFormat1 makes the frozen volume.
func updateFormat1(r *rig) {
	r.t.Helper()
	if err := os.MkdirAll(format1, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.write(format1+"/passphrase", "correct horse battery staple\n")
	r.write(r.pass, r.read(format1+"/passphrase"))
	r.envfs("init", "--passphrase-file", r.pass, r.dir).ok()
	r.mount()
	makeFormat1(r.t, r.mnt)
	manifest, err := json.MarshalIndent(withoutOwners(snapshot(r.t, r.mnt)), "", "\t")
	if err != nil {
		r.t.Fatal(err)
	}
	r.umount()
	r.write(format1+"/manifest.json", string(manifest)+"\n")
	pack(r.t, r.dir, format1+"/volume.tar")
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Fatal(err)
	}
}

// withoutOwners leaves out of account who unpacks a volume, and when.
func withoutOwners(tree map[string]entry) map[string]entry {
	for path, e := range tree {
		e.UID, e.GID = 0, 0
		tree[path] = e
	}
	return tree
}
