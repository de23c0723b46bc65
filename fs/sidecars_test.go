package fs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// sidecars lists the files that hold full names.
func sidecars(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, name := range storedNames(t, dir) {
		if crypto.IsSidecar(name) {
			names = append(names, name)
		}
	}
	return names
}

// TestSidecarsComeAndGo: each long name has its full name beside it as long as it is there, and no longer.
func TestSidecarsComeAndGo(t *testing.T) {
	a, b := longName('a', 255), longName('b', 176)
	r := newRig(t, Options{})
	step := func(what string, want int, f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := sidecars(t, r.cipher); len(got) != want {
			t.Errorf("after %s there are %d sidecars, want %d", what, len(got), want)
		}
	}
	rename := func(from, to string, flags uint) func() error {
		return func() error {
			return unix.Renameat2(unix.AT_FDCWD, r.path(from), unix.AT_FDCWD, r.path(to), flags)
		}
	}
	remove := func(name string) func() error { return func() error { return os.Remove(r.path(name)) } }
	step("a name that just fits", 0, func() error { return os.Mkdir(r.path(longName('x', 175)), 0o755) })
	step("create", 1, func() error { return os.WriteFile(r.path(a), []byte("a"), 0o644) })
	step("create where it is", 1, func() error { return os.WriteFile(r.path(a), []byte("aa"), 0o644) })
	step("long to long", 1, rename(a, b, 0))
	step("link", 2, func() error { return os.Link(r.path(b), r.path(a)) })
	step("exchange", 2, rename(a, b, unix.RENAME_EXCHANGE))
	step("rename over the same file", 2, rename(a, b, 0))
	step("unlink", 1, remove(a))
	step("long to short", 0, rename(b, "short", 0))
	step("short to long", 1, rename("short", a, 0))
	step("write short", 1, func() error { return os.WriteFile(r.path("short"), nil, 0o644) })
	step("exchange with a short one", 1, rename(a, "short", unix.RENAME_EXCHANGE))
	step("short over long", 1, rename("short", a, 0))
	step("mkdir", 2, func() error { return os.Mkdir(r.path(b), 0o755) })
	step("rmdir", 1, remove(b))
	step("symlink", 2, func() error { return os.Symlink("x", r.path(b)) })
	step("long over long", 1, rename(a, b, 0))
	step("unlink", 0, remove(b))
	for _, fail := range []func() error{
		rename("missing", a, 0), remove(a),
		func() error { return os.Link(r.path("missing"), r.path(a)) },
		func() error { _, err := os.Open(r.path(a)); return err },
		func() error { return os.Mkdir(r.path("missing/"+a), 0o755) },
	} {
		if err := fail(); err == nil {
			t.Error("no error")
		}
	}
	step("what failed", 0, func() error { return nil })
}

// TestLostSidecar: an entry whose full name is lost or damaged is still listed, and can be read, renamed and removed.
func TestLostSidecar(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(path string) error
	}{
		{"lost", os.Remove},
		{"empty", func(p string) error { return os.Truncate(p, 0) }},
		{"cut", func(p string) error { return os.Truncate(p, 100) }},
		{"of another", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("A", 300)), 0o600) }},
		{"endless", func(p string) error { return os.Truncate(p, 1<<40) }},
		{"a directory", func(p string) error { return makeInstead(p, func() error { return os.Mkdir(p, 0o755) }) }},
		{"a link", func(p string) error { return makeInstead(p, func() error { return os.Symlink("/etc/passwd", p) }) }},
		{"a fifo", func(p string) error { return makeInstead(p, func() error { return unix.Mkfifo(p, 0o600) }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{})
			long := longName('a', 255)
			for _, dir := range []string{"d1", "d2", "d3"} {
				if err := os.Mkdir(r.path(dir), 0o755); err != nil {
					t.Fatal(err)
				}
				r.write(dir+"/"+long, []byte("content"))
			}
			r.write("d1/short", []byte("short"))
			for _, dir := range []string{"d1", "d2", "d3"} {
				stored := r.stored(dir)
				side := sidecars(t, stored)
				if len(side) != 1 {
					t.Fatalf("%d sidecars", len(side))
				}
				if err := c.damage(filepath.Join(stored, side[0])); err != nil {
					t.Fatal(err)
				}
			}
			r.remount()
			lostSidecar(t, r, c.name != "a directory")
		})
	}
}

func makeInstead(path string, f func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return f()
}

// lostSidecar reads, renames and removes entries under the names by which they are listed.
func lostSidecar(t *testing.T, r *rig, removable bool) {
	t.Helper()
	shown := map[string]string{}
	for _, dir := range []string{"d1", "d2", "d3"} {
		for _, name := range storedNames(t, r.path(dir)) {
			if name != "short" {
				shown[dir] = dir + "/" + name
			}
		}
		if shown[dir] == "" {
			t.Fatalf("%s: the entry is not listed", dir)
		}
	}
	r.want(shown["d1"], []byte("content"))
	if err := os.Rename(r.path(shown["d1"]), r.path("d1/rescued")); err != nil {
		t.Errorf("rename: %v", err)
	}
	r.want("d1/rescued", []byte("content"))
	if err := os.Remove(r.path(shown["d2"])); err != nil {
		t.Errorf("unlink: %v", err)
	}
	if err := os.Remove(r.path("d2")); removable && err != nil {
		t.Errorf("rmdir: %v", err)
	}
	if err := os.RemoveAll(r.path("d3")); removable && err != nil {
		t.Errorf("rm -r: %v", err)
	}
}

// TestOrphanedSidecar: a crash between the removal of an entry and that of its full name leaves a file that nobody sees, and
// that must not keep the directory from being removed or replaced.
func TestOrphanedSidecar(t *testing.T) {
	hook := &failingCalls{}
	r := newRig(t, Options{}, withHook(hook))
	for _, dir := range []string{"d", "e"} {
		if err := os.Mkdir(r.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		long := longName('a', 255)
		r.write(dir+"/"+long, nil)
		rel, err := r.vol.EncryptPath(dir + "/" + long)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(r.cipher, rel)); err != nil {
			t.Fatal(err)
		}
		if n := len(sidecars(t, r.stored(dir))); n != 1 {
			t.Fatalf("%d sidecars", n)
		}
	}
	r.remount()
	if names := storedNames(t, r.path("d")); len(names) != 0 {
		t.Errorf("listed: %q", names)
	}
	op := backing.OpClose // which must not make a failure of what has been done
	hook.fails.Store(&op)
	if err := unix.Rmdir(r.path("d")); err != nil {
		t.Errorf("rmdir: %v", err)
	}
	hook.fails.Store(nil)
	if _, err := os.Lstat(r.path("d")); !os.IsNotExist(err) {
		t.Errorf("after rmdir: %v", err)
	}
	if err := os.Mkdir(r.path("new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Rename(r.path("new"), r.path("e")); err != nil {
		t.Errorf("rename over it: %v", err)
	}
}
