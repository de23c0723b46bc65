package fs

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// indexEntry is what git keeps of a file to tell whether it has changed.
type indexEntry struct {
	mtime, ctime unix.StatxTimestamp
	size, ino    uint64
	mode         uint16
}

// look asks the server, and not only the kernel's cache.
func look(t *testing.T, path string) indexEntry {
	t.Helper()
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &stx); err != nil {
		t.Fatal(err)
	}
	return indexEntry{stx.Mtime, stx.Ctime, stx.Size, stx.Ino, stx.Mode}
}

// isSealed reads the header on disk.
func isSealed(t *testing.T, stored string) bool {
	t.Helper()
	info, err := volume.InspectFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	return info.Header != nil && info.Header.Sealed
}

// TestSealingIsNotSeen: a file is sealed some time after it was closed, and no application may think that it changed.
func TestSealingIsNotSeen(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		for _, files := range []int{1, 40} { // sealed each alone, and together
			t.Run(fmt.Sprintf("writethrough %t, %d files", mode.WriteThrough, files), func(t *testing.T) {
				r := newRig(t, mode, withSealDelay(1<<40))
				seen := map[string]indexEntry{}
				for i := range files {
					name := fmt.Sprint("f", i)
					r.write(name, pattern(uint64(i), 10_000+i))
					seen[name] = look(t, r.path(name))
				}
				for name := range seen {
					if isSealed(t, r.stored(name)) {
						t.Fatalf("%s is sealed already, so that this test shows nothing", name)
					}
				}
				tick()
				for range 2 { // the second time after it was opened for writing, and not written
					r.seal()
					for name, before := range seen {
						if !isSealed(t, r.stored(name)) {
							t.Errorf("%s is not sealed", name)
						}
						if after := look(t, r.path(name)); after != before {
							t.Errorf("%s changed from\n%+v to\n%+v", name, before, after)
						}
					}
					openAndClose(t, r.path("f0"))
				}
				r.remount()
				for name, before := range seen {
					after := look(t, r.path(name))
					after.ctime = before.ctime // what the disk says once nobody remembers
					if after != before {
						t.Errorf("%s after another mount: from\n%+v to\n%+v", name, before, after)
					}
				}
			})
		}
	}
}

func openAndClose(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestChangeAfterSealIsSeen: hiding what sealing does must not hide what an application does.
func TestChangeAfterSealIsSeen(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		r := newRig(t, mode, withSealDelay(1<<40))
		for what, change := range map[string]func(path string) error{
			"chmod": func(p string) error { return os.Chmod(p, 0o600) },
			"write": func(p string) error { return os.WriteFile(p, []byte("other"), 0) },
			"link":  func(p string) error { return os.Link(p, p+"-link") },
			"xattr": func(p string) error { return unix.Setxattr(p, "user.x", []byte("y"), 0) },
		} {
			r.write(what, pattern(1, 5000))
			r.seal()
			before := look(t, r.path(what))
			tick()
			if err := change(r.path(what)); err != nil {
				t.Fatal(err)
			}
			if after := look(t, r.path(what)); after.ctime == before.ctime {
				t.Errorf("%s did not move the ctime", what)
			}
		}
	}
}

// TestStableInodes: programs like tar and rsync find hard links and renamed files by inode number.
func TestStableInodes(t *testing.T) {
	r := newRig(t, Options{})
	r.write("f", []byte("x"))
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", r.path("l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(r.path("f"), r.path("d/hard")); err != nil {
		t.Fatal(err)
	}
	before := map[string]uint64{}
	for _, name := range []string{".", "f", "d", "l", "d/hard"} {
		before[name] = look(t, r.path(name)).ino
	}
	r.remount()
	for name, ino := range before {
		if now := look(t, r.path(name)).ino; now != ino {
			t.Errorf("%s: inode %d was %d", name, now, ino)
		}
	}
	if before["f"] != before["d/hard"] || before["f"] == before["l"] {
		t.Errorf("inodes %v", before)
	}
}

// duringSeal calls look while a file is being sealed: after the header was written, before the times are given back.
type duringSeal struct {
	mu   sync.Mutex
	look func() // guarded by mu; nil once it was called
}

func (d *duringSeal) Before(c *backing.Call) error {
	d.mu.Lock()
	look := d.look
	if c.Op != backing.OpSetattr || look == nil {
		d.mu.Unlock()
		return nil
	}
	d.look = nil
	d.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); look() }()
	select {
	case <-done:
	case <-time.After(100 * time.Millisecond): // it waits for the seal, as it should
	}
	return nil
}

// TestSealingInTheMiddle: whoever looks while a file is being sealed sees what was there before, and so does the kernel, which
// remembers it.
func TestSealingInTheMiddle(t *testing.T) {
	hook := &duringSeal{}
	r := newRig(t, Options{WriteThrough: true}, withHook(hook), withSealDelay(1<<40))
	r.write("f", pattern(1, 10_000))
	before := look(t, r.path("f"))
	tick()
	seen := make(chan indexEntry, 1)
	hook.mu.Lock()
	hook.look = func() { seen <- look(t, r.path("f")) }
	hook.mu.Unlock()
	r.seal()
	if middle := <-seen; middle != before {
		t.Errorf("in the middle %+v, before %+v", middle, before)
	}
	if after := look(t, r.path("f")); after != before {
		t.Errorf("after it %+v, before %+v", after, before)
	}
}

// TestEndSealsAll: also what the kernel never released, because the mount was torn down. An unmount right after a close can
// lose a release in the same way.
func TestEndSealsAll(t *testing.T) {
	r := newRig(t, Options{}, withSealDelay(1<<40))
	f, err := os.Create(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(pattern(1, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	stored := r.stored("f")
	if err := unix.Unmount(r.dir, unix.MNT_FORCE); err != nil && err != unix.EBUSY {
		t.Fatal(err)
	}
	if err := unix.Unmount(r.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Wait(); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := r.vol.Close(); err != nil {
		t.Error(err)
	}
	if !isSealed(t, stored) {
		t.Error("the file is not sealed")
	}
	r.mount()
	r.want("f", pattern(1, 10_000))
}
