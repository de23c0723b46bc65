package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledUnderLoad kills the daemon while programs write and sync, mounts again, and looks: what was synced reads back, every
// file opens, everything lists and can be removed. What was being written is old or new. A kill that hits the overwriting of a
// whole block between two of its pages leaves that block unreadable, but for a mount that records such writes too.
func TestKilledUnderLoad(t *testing.T) {
	for name, flags := range map[string][]string{
		"writeback": nil, "writethrough": {"--cache", "writethrough"}, "full": {"--crash-safety", "full"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.mountFlags = append(r.mountFlags, flags...)
			r.faults = name != "full"
			r.mount()
			torn := map[string]bool{} // paths in the mount
			for i := range soaking(3, 100) {
				r.killOnce(fmt.Sprint("round-", i), torn)
				if t.Failed() {
					return
				}
				if i%3 > 0 { // every third stays, to be lived through again
					r.removed(r.path(fmt.Sprint("round-", i)))
				}
			}
			t.Logf("torn: %v", slices.Sorted(maps.Keys(torn)))
			r.remount()
			r.opensAll(r.mnt, torn)
			r.sh(`rm -r -- *`)
			r.umount()
			if left, err := os.ReadDir(r.dir); err != nil || len(left) != 1 {
				t.Errorf("left in the ciphertext directory: %v, %v", left, err)
			}
		})
	}
}

// killOnce is one round, in a directory of its own. torn are the files with blocks that cannot be read.
func (r *rig) killOnce(round string, torn map[string]bool) {
	r.t.Helper()
	s := r.startSyncing(round)
	for range 3 {
		s.goOn()
	}
	time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond) // so that it is hit anywhere
	r.crash()
	for _, p := range s.processes {
		p.ends(goneCode)
	}
	r.mount()
	v := r.verify(r.dir)
	for _, f := range v.Findings {
		if f.Class == "notice" {
			continue
		}
		if known := torn[f.Plaintext]; f.Kind != "block" || !known && (!r.faults || !strings.HasPrefix(f.Plaintext, round+"/")) {
			r.t.Errorf("%s: %+v", round, f)
		}
		torn[f.Plaintext] = true
	}
	checkSynced(r.t, r.path(round), s.ledgers)
	r.opensAll(r.path(round), torn)
}

// opensAll lists everything and reads every file to its end, but for the torn ones.
func (r *rig) opensAll(dir string, torn map[string]bool) {
	r.t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = contentOf(path, d.Type())
		}
		rel, rerr := filepath.Rel(r.mnt, path)
		if err != nil && !(torn[rel] && errors.Is(err, syscall.EIO)) {
			r.t.Errorf("%s: %v", path, err)
		}
		return rerr
	})
	if err != nil {
		r.t.Error(err)
	}
}

// removed removes a directory and all that is in it.
func (r *rig) removed(dir string) {
	r.t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		r.t.Error(err)
	}
}
