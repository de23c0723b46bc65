package fs

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// forgetEntry makes the kernel forget a name and, if nobody uses it, the inode behind.
func (r *rig) forgetEntry(dir uint64, name string) {
	r.t.Helper()
	if err := r.server.dev.InvalidateEntry(dir, name); err != nil {
		r.t.Fatalf("forget %s: %v", name, err)
	}
}

// nodeOf returns the inode of a name, which is looked up.
func (r *rig) nodeOf(name string) *inode {
	r.t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(r.path(name), &st); err != nil {
		r.t.Fatal(err)
	}
	for _, n := range r.server.table.all() {
		if n.key.ino == st.Ino {
			return n
		}
	}
	r.t.Fatalf("%s is not known", name)
	return nil
}

// lookups returns how often the kernel has been told of an inode and has not forgotten it.
func (r *rig) lookups(n *inode) uint64 {
	r.server.table.mu.RLock()
	defer r.server.table.mu.RUnlock()
	return n.lookups
}

// TestForgottenBeforeItsSeal: the kernel may forget a file that waits to be sealed. When it is written again, the first seal
// must not come over the second one.
func TestForgottenBeforeItsSeal(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		r := newRig(t, mode, withSealDelay(time.Hour))
		content := pattern(1, 10_000)
		r.write("f", content)
		n := r.nodeOf("f")
		waitFor(t, "the release", func() bool { return r.server.OpenHandles() == 0 })
		r.forgetEntry(rootID, "f")
		waitFor(t, "the kernel to forget", func() bool { return r.lookups(n) == 0 })
		if again := r.nodeOf("f"); again != n {
			t.Error("one file is two inodes")
		}
		f, err := os.OpenFile(r.path("f"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil { // so that it is sealed as soon as it is closed
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		r.remount()
		r.want("f", append(content, content...))
		r.unmount()
	}
}

// TestForgottenAfterItsSeal: an inode that waited for its File is gone once the File is.
func TestForgottenAfterItsSeal(t *testing.T) {
	r := newRig(t, Options{}, withSealDelay(time.Hour))
	before := r.server.table.size()
	r.write("f", pattern(1, 100))
	n := r.nodeOf("f")
	waitFor(t, "the release", func() bool { return r.server.OpenHandles() == 0 })
	r.forgetEntry(rootID, "f")
	waitFor(t, "the kernel to forget", func() bool { return r.lookups(n) == 0 })
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if size := r.server.table.size(); size != before {
		t.Errorf("%d inodes are known, before the file was made %d", size, before)
	}
}

// TestForgottenDirectoryOfALink: a file stays reachable by the name that the kernel still knows.
func TestForgottenDirectoryOfALink(t *testing.T) {
	r := newRig(t, Options{})
	for _, dir := range []string{"a", "b"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.write("a/f", []byte("text"))
	if err := os.Link(r.path("a/f"), r.path("b/f")); err != nil {
		t.Fatal(err)
	}
	r.seal()
	dir := r.nodeOf("a")
	r.forgetEntry(rootID, "a")
	waitFor(t, "the kernel to forget", func() bool { return r.lookups(dir) == 0 })
	if err := os.Chmod(r.path("b/f"), 0o600); err != nil {
		t.Error(err)
	}
	r.want("b/f", []byte("text"))
	if err := os.Remove(r.path("b/f")); err != nil {
		t.Error(err)
	}
	r.want("a/f", []byte("text"))
}
