package fs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk puts the ciphertext directory on a file system of the given size, in bytes, of the test's own.
func smallDisk(t *testing.T, size string) func(r *rig) {
	return func(r *rig) {
		disk := filepath.Join(filepath.Dir(r.cipher), "disk")
		if err := os.Mkdir(disk, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("envfs-test", disk, "tmpfs", 0, "size="+size); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		r.cipher = filepath.Join(disk, "cipher")
	}
}

// TestDiskFull: the error reaches whoever writes, syncs or closes, and what was there before stays readable.
func TestDiskFull(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		r := newRig(t, mode, smallDisk(t, "4m"))
		kept := pattern(1, 700_000)
		r.write("kept", kept)
		r.seal()
		if err := fillUp(r.path("full")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("writing more than fits: %v", err)
		}
		r.want("kept", kept)
		if err := appendTo(r.path("kept"), pattern(2, 5<<20)); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("appending more than fits: %v", err)
		}
		got, err := os.ReadFile(r.path("kept"))
		if err != nil || len(got) < len(kept) || digest(got[:len(kept)]) != digest(kept) {
			t.Errorf("what was there before: %d bytes, %v", len(got), err)
		}
		if err := os.Remove(r.path("full")); err != nil {
			t.Fatalf("a full disk cannot be emptied: %v", err)
		}
		if err := os.Truncate(r.path("kept"), int64(len(kept))); err != nil {
			t.Fatal(err)
		}
		r.remount()
		r.want("kept", kept)
		r.write("after", kept)
		r.want("after", kept)
		r.unmount()
	}
}

// fillUp writes until there is no room; the error may come from the write, the sync or the close.
func fillUp(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for i := range 64 {
		if _, werr := f.Write(pattern(uint64(i), 100_000)); werr != nil {
			err = werr
			break
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func appendTo(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// TestDiskFullAtClose: without a sync the close reports it.
func TestDiskFullAtClose(t *testing.T) {
	r := newRig(t, Options{}, smallDisk(t, "2m"))
	f, err := os.Create(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	_, werr := f.Write(pattern(1, 3<<20))
	if err := errors.Join(werr, f.Close()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("write and close: %v", err)
	}
	if err := os.Remove(r.path("f")); err != nil {
		t.Error(err)
	}
}

// TestDiskFullByNames: an entry that cannot be made leaves nothing behind.
func TestDiskFullByNames(t *testing.T) {
	r := newRig(t, Options{}, smallDisk(t, "1m,nr_inodes=20"))
	var err error
	made := 0
	for ; err == nil && made < 100; made++ {
		err = os.Mkdir(r.path(longName(byte('a'+made), 200)), 0o755)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("after %d directories: %v", made, err)
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != made-1 {
		t.Errorf("%d entries of %d, %v", len(entries), made-1, err)
	}
	for _, e := range entries {
		if err := os.Remove(r.path(e.Name())); err != nil {
			t.Error(err)
		}
	}
	if left := storedNames(t, r.cipher); len(left) != 1 {
		t.Errorf("left behind: %q", left)
	}
}

// storedNames lists a directory of the ciphertext.
func storedNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
