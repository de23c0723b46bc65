package fs

import (
	"os"
	"path/filepath"
	"testing"
)

// TestForeignFiles: what somebody else put into the ciphertext directory is left alone, hidden, and logged once.
func TestForeignFiles(t *testing.T) {
	r := newRig(t, Options{})
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("f", []byte("ours"))
	r.write("d/f", []byte("ours"))
	foreign := []string{"README.txt", "backup.tar", ".hidden", "bm90IG91cnMgYXQgYWxs", "conflicted copy"}
	for _, dir := range []string{r.cipher, r.stored("d")} {
		for _, name := range foreign {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("foreign"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 3 {
		for dir, want := range map[string][]string{".": {"d", "f"}, "d": {"f"}} {
			// A change, so that the kernel does not answer from its cache.
			r.write(dir+"/tmp", nil)
			if err := os.Remove(r.path(dir + "/tmp")); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(r.path(dir))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if len(names) != len(want) || names[0] != want[0] {
				t.Errorf("%s lists %q", dir, names)
			}
		}
	}
	for _, name := range foreign {
		if _, err := os.Lstat(r.path(name)); !os.IsNotExist(err) {
			t.Errorf("%s is to be seen: %v", name, err)
		}
		if n := r.log.count("name="+name+"\n") + r.log.count("name=\""+name+"\"\n"); n != 2 {
			t.Errorf("%s was logged %d times, in two directories", name, n)
		}
		r.write(name, []byte("one of ours with that name"))
		r.want(name, []byte("one of ours with that name"))
		for _, dir := range []string{r.cipher, r.stored("d")} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "foreign" {
				t.Errorf("%s was touched: %q, %v", name, b, err)
			}
		}
	}
	// A directory with something foreign inside is not empty, whatever it looks like.
	if err := os.Remove(r.path("d/f")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path("d")); err == nil {
		t.Error("a directory with foreign files was removed")
	}
}
