package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// saveFile writes a file as an editor does: a temporary file, synced, renamed over the old one, and the directory synced.
func saveFile(t *testing.T, path, content string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".saving-*")
	check(err)
	_, err = f.WriteString(content)
	check(err)
	check(f.Sync())
	check(f.Close())
	check(os.Rename(f.Name(), path))
	dir, err := os.Open(filepath.Dir(path))
	check(err)
	check(dir.Sync())
	check(dir.Close())
}

// TestSave kills the daemon right after a save: what was synced is there, and nothing else is.
func TestSave(t *testing.T) {
	r := mounted(t)
	r.mkdir(r.path("docs"))
	for i, size := range []int{1, 4095, 4096, 4097, 300_000, 0} {
		content := string(noise(size, uint64(i)))
		saveFile(t, r.path("docs/letter"), content)
		r.crash()
		r.mount()
		if got := r.read(r.path("docs/letter")); got != content {
			t.Errorf("after save %d and a crash: %d bytes, want %d, or others", i, len(got), size)
		}
		if entries, err := os.ReadDir(r.path("docs")); err != nil || len(entries) != 1 {
			t.Errorf("after save %d: %v %v", i, entries, err)
		}
	}
}

// TestCrashWhileWriting kills the daemon while files are open and written: what was synced before stays, and whatever
// else is there can be read.
func TestCrashWhileWriting(t *testing.T) {
	r := mounted(t)
	const synced = 100_000
	for i := range 5 {
		f, err := os.Create(r.path(fmt.Sprintf("file-%d", i)))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() // of a file system that is gone by then
		if _, err := f.Write(noise(synced, uint64(i))); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		// Grows the file and never reaches the disk as far as anybody was told.
		if _, err := f.WriteAt(noise(1<<20, 99), synced+int64(i)*1000); err != nil {
			t.Fatal(err)
		}
	}
	r.crash()
	r.mount()
	for i := range 5 {
		got := r.read(r.path(fmt.Sprintf("file-%d", i)))
		if len(got) < synced || got[:synced] != string(noise(synced, uint64(i))) {
			t.Errorf("file %d: what was synced is lost, %d bytes are left", i, len(got))
		}
	}
	// Unsealed files go on being used.
	r.sh(`for f in file-*; do printf more >> "$f"; done`)
	r.remount()
	for i := range 5 {
		if got := r.read(r.path(fmt.Sprintf("file-%d", i))); got[len(got)-4:] != "more" {
			t.Errorf("file %d cannot be appended to after a crash", i)
		}
	}
}
