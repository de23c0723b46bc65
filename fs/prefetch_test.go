package fs

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring/keyringtest"
)

// fill makes dirs directories of files small files each.
func fill(t *testing.T, root string, dirs, files int) {
	t.Helper()
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprint("d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", f)), []byte(dir), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// order is in which order a reader goes through a directory.
type order func(a, b os.DirEntry) int

// byInode is how cp does.
func byInode(a, b os.DirEntry) int { return cmp.Compare(inodeOf(a), inodeOf(b)) }

// byName is how programs do that sort what they list.
func byName(a, b os.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) }

func inodeOf(e os.DirEntry) uint64 {
	info, err := e.Info()
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// readTree reads every file below dir, in directory order or another one, and returns how many there were.
func readTree(t *testing.T, dir string, in order) (files int) {
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
	if in != nil {
		slices.SortFunc(entries, in)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			files += readTree(t, path, in)
			continue
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != dir {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		files++
	}
	return files
}

// TestPrefetchSavesRequests reads trees of several shapes through a slow key service, cold: it must not be asked once for each
// file, nor once or twice for each directory. The order of names comes third: in small directories it is more often mistaken
// for another one, and then found anew.
func TestPrefetchSavesRequests(t *testing.T) {
	for _, by := range []struct {
		name  string
		in    order
		limit int // for 1,000 files
	}{{"directory order", nil, 20}, {"inode order", byInode, 20}, {"name order", byName, 40}} {
		for _, shape := range [][2]int{{1, 2000}, {80, 25}, {400, 5}} {
			dirs, files := shape[0], shape[1]
			t.Run(fmt.Sprintf("%s, %d of %d", by.name, dirs, files), func(t *testing.T) {
				r := newRig(t, Options{}, func(r *rig) { r.open.Prefetch = true })
				fill(t, r.dir, dirs, files)
				r.remount()
				r.kr.SetDelay(30 * time.Millisecond)
				before := r.kr.Counters()
				if got := readTree(t, r.dir, by.in); got != dirs*files {
					t.Errorf("read %d files", got)
				}
				asked := requests(before, r.kr.Counters())
				if asked > dirs*files*by.limit/1000 {
					t.Errorf("%d requests for %d files", asked, dirs*files)
				}
				t.Logf("%d requests for %d files", asked, dirs*files)
			})
		}
	}
}

func requests(before, after keyringtest.Counters) int { return after.Unwraps - before.Unwraps }

// TestListingAsksForNoKey: what needs no key must not ask for any.
func TestListingAsksForNoKey(t *testing.T) {
	r := newRig(t, Options{}, func(r *rig) { r.open.Prefetch = true })
	fill(t, r.dir, 5, 10)
	r.remount()
	before := r.kr.Counters()
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.path("d0/f0"), r.path("d1/moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.path("d0")); err != nil {
		t.Fatal(err)
	}
	if asked := requests(before, r.kr.Counters()); asked != 0 {
		t.Errorf("%d requests", asked)
	}
}
