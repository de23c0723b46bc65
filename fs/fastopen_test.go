package fs

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFastOpen: without opens and closes everything is as usual, but for when a key that is refused is reported.
func TestFastOpen(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{FastOpen: true})
	r.write("f", bytes.Repeat([]byte("long"), 100_000))
	r.write("f", []byte("short")) // O_TRUNC
	if err := appendTo(r.path("f"), []byte(" and more")); err != nil {
		t.Fatal(err)
	}
	r.want("f", []byte("short and more"))
	if r.server.OpenHandles() != 0 || r.server.Stats().Opens != 0 {
		t.Errorf("the kernel has asked for opens: %+v", r.server.Stats())
	}

	f, err := os.OpenFile(r.path("f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.path("f")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("SHORT"), 0); err != nil {
		t.Error(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Errorf("fsync and close of a removed file: %v", err)
	}
	waitFor(t, "the removed file to be forgotten", func() bool { return r.server.Stats().Inodes == 1 })

	r.write("denied", []byte("secret"))
	r.remount()
	r.kr.Deny()
	defer r.kr.Restore()
	d, err := os.Open(r.path("denied"))
	if err != nil {
		t.Fatalf("open without a key: %v", err)
	}
	defer d.Close()
	if _, err := d.Read(make([]byte, 10)); !errors.Is(err, unix.EACCES) {
		t.Errorf("read without a key: %v", err)
	}
}

// TestFastOpenSeals: files are let go of some time after their last use, and sealed.
func TestFastOpenSeals(t *testing.T) {
	r := newRig(t, Options{FastOpen: true})
	r.write("f", []byte("content"))
	r.server.held.mu.Lock()
	holding := len(r.server.held.files)
	r.server.held.mu.Unlock()
	if holding != 1 {
		t.Errorf("%d files are held, want 1", holding)
	}
	r.server.held.sweep() // as the timer does, without waiting for it
	r.server.held.sweep()
	waitFor(t, "the file to be sealed and closed", func() bool {
		var st unix.Stat_t
		if err := unix.Stat(r.stored("f"), &st); err != nil {
			t.Fatal(err)
		}
		n := r.server.table.find(&st)
		return n == nil || n.file.Load() == nil
	})
	r.want("f", []byte("content"))
}
