package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestForeign puts files into the ciphertext directory that envfs has not made: they are hidden, left alone and logged once.
func TestForeign(t *testing.T) {
	r := mounted(t)
	r.sh(`mkdir dir; echo ours > dir/ours`)
	below := r.ciphertextOf("dir")
	r.umount()
	other := newVolumeBeside(r, "other")
	foreign := []string{"README", ".stfolder", "lost+found", strings.Repeat("A", 40), other, "envfs.json.tmp-0123456789abcdef", "two words.txt"}
	for _, dir := range []string{r.dir, below} {
		for _, name := range foreign {
			r.write(filepath.Join(dir, name), "not ours")
		}
		r.mkdir(filepath.Join(dir, "a directory/inside"))
	}
	before := snapshot(t, r.dir)
	r.mount()
	for range 3 {
		if out := r.sh(`find . -mindepth 1 | sort`); out != "./dir\n./dir/ours\n" {
			t.Errorf("the mount shows:\n%s", out)
		}
	}
	r.sh(`test ! -e README; test ! -e '` + other + `'; echo new > dir/README; cat dir/README; rm dir/README`)
	if err := os.Remove(r.path("dir")); err == nil {
		t.Error("a directory that is not empty was removed")
	}
	r.sh(`rm dir/ours`)
	if err := os.Remove(r.path("dir")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("removing a directory with foreign files: %v, want ENOTEMPTY", err)
	}
	r.sh(`echo ours > dir/ours`)
	r.umount()
	after := snapshot(t, r.dir)
	for path, e := range before {
		if slices.Contains(foreign, filepath.Base(path)) && after[path] != e {
			t.Errorf("%s has changed", path)
		}
	}
	for _, name := range []string{"README", "a directory"} {
		if n := strings.Count(r.read(r.log), name); n != 2 { // one in each directory
			t.Errorf("%q is mentioned %d times in the log, want once for each directory", name, n)
		}
	}
}

// newVolumeBeside makes another volume and returns the stored name of a file of it.
func newVolumeBeside(r *rig, name string) string {
	r.t.Helper()
	r.envfs("init", "--argon2-time", "1", "--passphrase-file", r.pass, r.below(name)).ok()
	return strings.TrimSpace(r.envfs("path", "encrypt", "--passphrase-file", r.pass, "--volume", r.below(name), "of another volume").ok().stdout)
}

// TestNameLimit makes names up to the longest that there are, and one longer.
func TestNameLimit(t *testing.T) {
	r := mounted(t)
	for _, n := range []int{1, 175, 176, 254, 255} {
		r.write(r.path(strings.Repeat("n", n)), fmt.Sprint(n))
	}
	err := os.WriteFile(r.path(strings.Repeat("n", 256)), nil, 0o600)
	if !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("a name of 256 bytes: %v, want ENAMETOOLONG", err)
	}
	r.remount()
	entries, err := os.ReadDir(r.mnt)
	if err != nil || len(entries) != 5 {
		t.Errorf("%d names, %v", len(entries), err)
	}
	for _, e := range entries {
		if got := r.read(r.path(e.Name())); got != fmt.Sprint(len(e.Name())) {
			t.Errorf("the name of %d bytes: %q", len(e.Name()), got)
		}
	}
	r.sh(`rm n*`)
	r.umount()
	if left, err := os.ReadDir(r.dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestNoSpace fills the file system below.
func TestNoSpace(t *testing.T) {
	needRoot(t)
	need(t, "mount", "umount")
	for _, cache := range []string{"writeback", "writethrough"} {
		t.Run(cache, func(t *testing.T) {
			r := newPlace(t)
			r.mkdir(r.dir)
			run(t, nil, r.base, "mount", "-t", "tmpfs", "-o", "size=16m", "none", r.dir).ok()
			r.dir = filepath.Join(r.dir, "vol")
			r.envfs("init", "--argon2-time", "1", "--passphrase-file", r.pass, r.dir).ok()
			r.mountFlags = []string{"--passphrase-file", r.pass, "--cache", cache}
			r.faults = true
			r.mount()
			kept := noise(1_000_000, 1)
			r.write(r.path("kept"), string(kept))
			r.sh(`sync kept`)

			res := r.script(`dd if=/dev/zero of=filling bs=64k count=400 conv=fsync`)
			if res.code == 0 || !strings.Contains(res.stderr, "No space left on device") {
				t.Errorf("25 MB went into 16: exit code %d, %s", res.code, res.stderr)
			}
			// Growing what is there fails, too, and what was there before is not touched.
			res = r.script(`head -c 3000000 /dev/urandom | dd of=kept bs=64k seek=100 conv=notrunc,fsync`)
			if res.code == 0 {
				t.Error("more went in")
			}
			if got := r.read(r.path("kept")); !strings.HasPrefix(got, string(kept)) {
				t.Error("what was there cannot be read any more")
			}
			r.sh(`rm filling; truncate -s 1000000 kept; head -c 2000000 /dev/urandom > fits; sync fits; cp fits "$BASE/fits"`)
			r.remount()
			if got := r.read(r.path("kept")); got != string(kept) {
				t.Errorf("after a remount: %d bytes, or others", len(got))
			}
			r.sh(`cmp fits "$BASE/fits"`)
			r.umount()
		})
	}
}
