package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// inDirectoryOrder lists the regular files below dir as a depth-first reader meets them.
func inDirectoryOrder(t *testing.T, dir string) []string {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			files = append(files, inDirectoryOrder(t, path)...)
		} else if e.Type().IsRegular() && e.Name() != ConfigName {
			files = append(files, path)
		}
	}
	return files
}

// TestWalkFollowsDirectoryOrder starts behind each file of a tree in turn and expects exactly the files that follow it.
func TestWalkFollowsDirectoryOrder(t *testing.T) {
	r := newFileRig(t)
	for _, dir := range []string{"a", "a/deep", "a/deep/er", "b", "empty", "c"} {
		if err := os.Mkdir(r.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if dir != "empty" {
				r.write(filepath.Join(dir, fmt.Sprint("f", i)), []byte("x"))
			}
		}
	}
	if err := os.Symlink("/etc", r.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(r.path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := inDirectoryOrder(t, r.dir)
	if len(files) != 15 {
		t.Fatalf("%d files", len(files))
	}
	for i, from := range files {
		var want []uint64
		for _, f := range files[i+1:] {
			want = append(want, inodeOf(t, f))
		}
		if got := walkFrom(t, r, from); !slices.Equal(got, want) {
			t.Errorf("behind %s: inodes %v, want %v", from, got, want)
		}
	}
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func walkFrom(t *testing.T, r *fileRig, path string) (inodes []uint64) {
	t.Helper()
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	w, err := r.vol.newWalk(int(dir.Fd()), filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for {
		key, wrapped, err := w.next()
		if errors.Is(err, io.EOF) {
			return inodes
		}
		if err != nil {
			t.Fatal(err)
		}
		if wrapped != "" {
			inodes = append(inodes, key.Ino)
		}
	}
}

// TestWalkLeavesNoDescriptor counts what is open before and after.
func TestWalkLeavesNoDescriptor(t *testing.T) {
	r := newFileRig(t)
	if err := os.MkdirAll(r.path("a/b/c"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("a/b/c/f", []byte("x"))
	r.write("a/b/g", []byte("x"))
	r.reopen(&backing.Store{})
	before := openDescriptors(t)
	walkFrom(t, r, r.path("a/b/c/f"))
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors open after the walk, %d before", after, before)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
