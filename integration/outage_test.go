package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestOutage stops the key service under a mount, in the two ways in which it can be away, and lets it come back.
func TestOutage(t *testing.T) {
	need(t, "setfattr", "getfattr")
	for _, test := range []struct {
		name       string
		begin, end func(v vaultServer)
	}{
		{"stopped", func(v vaultServer) { v.Stop() }, func(v vaultServer) { v.Restart() }},
		{"sealed", func(v vaultServer) { v.Seal() }, func(v vaultServer) { v.Unseal() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, s := newVaultRig(t, nil)
			r.faults = true
			r.mount()
			for _, name := range []string{"open", "cold", "other"} {
				r.write(r.path(name), "content of "+name)
			}
			r.sh(`mkdir dir; seq 100 > dir/numbers; setfattr -n user.a -v b dir/numbers; ln -s cold link`)
			r.remount()
			open, err := os.OpenFile(r.path("open"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := open.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
					t.Error(err)
				}
			}()
			r.write(r.path("before"), "a first new file, so that there are keys for more")

			test.begin(s)
			r.worksWithoutKeys(open)
			for i := range 50 {
				r.write(r.path(fmt.Sprintf("new-%d", i)), fmt.Sprintf("new file %d", i))
			}
			if got := r.read(r.path("new-7")); got != "new file 7" {
				t.Errorf("a file made in the outage: %q", got)
			}
			_, err = os.ReadFile(r.path("cold"))
			if !errors.Is(err, syscall.ENOKEY) {
				t.Errorf("a file whose key is not there: %v, want ENOKEY", err)
			}
			if log := r.read(r.log); strings.Count(log, "key service does not answer") != 1 {
				t.Error("the log does not say once that the key service does not answer")
			}

			test.end(s)
			for name, want := range map[string]string{"cold": "content of cold", "new-49": "new file 49"} {
				r.until("reading "+name, func() bool {
					got, err := os.ReadFile(r.path(name))
					return err == nil && string(got) == want
				})
			}
			if err := open.Close(); err != nil {
				t.Error(err)
			}
			r.remount()
			for name, want := range map[string]string{"open": "content of open, and more", "new-0": "new file 0", "moved": "content of other"} {
				if got := r.read(r.path(name)); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// vaultServer is what a test does to the server.
type vaultServer interface {
	Stop()
	Restart()
	Seal()
	Unseal()
}

// worksWithoutKeys does what needs no key, or only the one of an open file. It moves other to moved.
func (r *rig) worksWithoutKeys(open *os.File) {
	r.t.Helper()
	content, err := io.ReadAll(open)
	if err != nil || string(content) != "content of open" {
		r.t.Errorf("an open file: %q, %v", content, err)
	}
	if _, err = open.WriteString(", and more"); err == nil {
		err = open.Sync()
	}
	if err != nil {
		r.t.Errorf("writing an open file: %v", err)
	}
	r.sh(`ls -lR > /dev/null; test "$(stat -c %s cold)" = 15; test "$(readlink link)" = cold; getfattr --only-values -n user.a dir/numbers | grep -qx b
		mv other moved; chmod 640 moved; touch -c -d 2001-02-03 dir/numbers; ln moved again; rm again; setfattr -n user.c -v d moved
		find . -name numbers | grep -q numbers; rm -r dir; mkdir dir; df . > /dev/null; test "$(cat open)" = "content of open, and more"`)
}

// TestOutagePool uses all keys up that were wrapped ahead of need: a file that cannot get a key fails, and does not harm any other.
func TestOutagePool(t *testing.T) {
	r, s := newVaultRig(t, nil)
	r.faults = true
	r.mount()
	r.write(r.path("first"), "first")
	s.Stop()
	made := 0
	var failure error
	for made < 2000 && failure == nil {
		if failure = writeSynced(r.path(fmt.Sprintf("file-%d", made)), fmt.Sprint(made)); failure == nil {
			made++
		}
	}
	if !errors.Is(failure, syscall.ENOKEY) {
		t.Errorf("after %d files: %v, want ENOKEY", made, failure)
	}
	if made < 64 {
		t.Errorf("only %d files could be made", made)
	}
	s.Restart()
	r.until("making files again", func() bool { return writeSynced(r.path("again"), "again") == nil })
	r.remount()
	for i := range made {
		if got := r.read(r.path(fmt.Sprintf("file-%d", i))); got != fmt.Sprint(i) {
			t.Fatalf("file %d: %q", i, got)
		}
	}
	if got := r.read(r.path("again")); got != "again" {
		t.Errorf("again: %q", got)
	}
}

// writeSynced writes a file and reports what may go wrong as late as when it is closed.
func writeSynced(path, content string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}
