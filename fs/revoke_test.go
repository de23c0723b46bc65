package fs

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func readAt(f *os.File, n int) ([]byte, error) {
	buf := make([]byte, n)
	_, err := f.ReadAt(buf, 0)
	return buf, err
}

// TestRefusedKey takes the key of open files away and gives it back.
func TestRefusedKey(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(r *rig)
		errno  unix.Errno
	}{
		{"denied", func(r *rig) { r.kr.Deny() }, unix.EACCES},
		{"revoked", func(r *rig) { r.kr.RevokeBefore(r.kr.Rotate()) }, unix.EKEYREVOKED},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{}, func(r *rig) { r.open.Cache.TTL = 200 * time.Millisecond })
			want := bytes.Repeat([]byte("secret"), 5000)
			if err := os.WriteFile(r.path("f"), want, 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(r.path("f"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if got, err := readAt(f, len(want)); err != nil || !bytes.Equal(got, want) {
				t.Fatal(err) // its pages are in the kernel's cache now
			}
			if _, err := f.WriteAt([]byte("SECRET"), 0); err != nil {
				t.Fatal(err) // and one of them is dirty
			}
			copy(want, "SECRET")

			c.refuse(r)
			waitFor(t, "reading fails although the pages were cached", func() bool {
				_, err := readAt(f, len(want))
				return errors.Is(err, c.errno)
			})
			if _, err := os.ReadFile(r.path("f")); !errors.Is(err, c.errno) {
				t.Errorf("opening it again: %v", err)
			}
			if _, err := os.Stat(r.path("f")); err != nil {
				t.Errorf("stat: %v", err)
			}

			r.kr.Restore()
			r.kr.RevokeBefore(1)
			waitFor(t, "reading works again, with what was written before", func() bool {
				got, err := readAt(f, len(want))
				return err == nil && bytes.Equal(got, want)
			})
			if got, err := os.ReadFile(r.path("f")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("opening it again: %v", err)
			}
		})
	}
}

// TestOutageKeepsOpenFilesWorking: no answer is not a no.
func TestOutageKeepsOpenFilesWorking(t *testing.T) {
	r := newRig(t, Options{KeyWait: 300 * time.Millisecond}, func(r *rig) {
		r.open.Cache.TTL, r.open.Cache.Grace = 100*time.Millisecond, time.Hour
	})
	for _, name := range []string{"open", "closed"} {
		if err := os.WriteFile(r.path(name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.remount()
	f, err := os.OpenFile(r.path("open"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.kr.Outage()
	before := r.kr.Counters()
	waitFor(t, "the service was asked again, in vain", func() bool { return r.kr.Counters().Unwraps > before.Unwraps+1 })
	if _, err := f.WriteAt([]byte("OPEN"), 0); err != nil {
		t.Errorf("write: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("fsync: %v", err)
	}
	if _, err := os.ReadFile(r.path("closed")); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("opening a file whose key is not there: %v", err)
	}
	if err := os.WriteFile(r.path("new"), []byte("new"), 0o644); err != nil {
		t.Errorf("creating, while the pool lasts: %v", err)
	}
	r.kr.Restore()
	waitFor(t, "files open again", func() bool {
		got, err := os.ReadFile(r.path("closed"))
		return err == nil && string(got) == "closed"
	})
}
