package volume

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/backing/powercut"
)

// eachPowerCut makes n power cuts in what rec has recorded and hands check the directory and the store that is used on it.
func eachPowerCut(t *testing.T, rec *powercut.Recorder, n int, check func(at int, dir string, store *backing.Store)) {
	t.Helper()
	l, err := rec.Log()
	if err == nil {
		err = l.CheckComplete()
	}
	if err != nil {
		t.Fatal(err)
	}
	seed, made, base := powercut.Seed(t, 1), 0, powercut.TempDir(t)
	err = l.EachCut(seed, powercut.Count(t, n), func(at int, disk *powercut.Image) error {
		made++
		dir := filepath.Join(base, strconv.Itoa(made))
		inodes, err := disk.WriteTo(dir)
		if err != nil {
			return err
		}
		defer func() {
			if t.Failed() {
				t.Logf("power cut %d with seed %d, after %d of %d events: %v", made, seed, at, l.Len(), disk)
			}
		}()
		check(at, dir, &backing.Store{Hook: inodes})
		return os.RemoveAll(dir)
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d power cuts in %d events", made, l.Len())
}

// recordRig starts to record the directory of a rig, whose volume is closed and is used through the store returned.
func recordRig(r *rewrapRig) (*powercut.Recorder, *backing.Store) {
	r.t.Helper()
	r.close()
	rec, err := powercut.Record(r.dir, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return rec, &backing.Store{Hook: rec}
}

// after is the rig of a directory that a power cut has left.
func (r *rewrapRig) after(dir string, store *backing.Store) *rewrapRig {
	r.t.Helper()
	a := &rewrapRig{fileRig: &fileRig{t: r.t, dir: dir, kr: r.kr}, fake: r.fake, names: r.names, want: r.want}
	a.open(store)
	return a
}

// TestPowerCutsUnderRewrap: each file opens with its content, and the next rewrap finishes the work.
func TestPowerCutsUnderRewrap(t *testing.T) {
	for name, files := range map[string]int{"each synced": 5, "synced together": sealEach + 5} {
		t.Run(name, func(t *testing.T) {
			r := newRewrapRig(t)
			r.fill(files)
			rec, store := recordRig(r)
			version := r.fake.Rotate()
			r.mustRewrap(RewrapOptions{Store: store})
			r.open(&backing.Store{})
			eachPowerCut(t, rec, 100, func(at int, dir string, store *backing.Store) {
				a := r.after(dir, store)
				a.check()
				a.close()
				if at%4 == 0 {
					a.mustRewrap(RewrapOptions{Store: store})
					a.checkVersions(version)
				}
			})
		})
	}
}

// TestPowerCutsUnderRewrapBesideMount rewraps while files are open for writing, written, synced and sealed.
func TestPowerCutsUnderRewrapBesideMount(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(6)
	rec, store := recordRig(r)
	r.open(store)
	var open []*File
	for plain, content := range r.want {
		f := r.load(r.names[plain], true)
		if _, err := f.WriteAt(content, 0); err != nil { // the same once more
			t.Fatal(err)
		}
		open = append(open, f)
		r.fake.Rotate()
		r.mustRewrap(RewrapOptions{Store: store})
		if err := f.Sync(true); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range open {
		f.Release()
	}
	r.close()
	r.open(&backing.Store{})
	eachPowerCut(t, rec, 200, func(_ int, dir string, store *backing.Store) {
		a := r.after(dir, store)
		a.check()
		a.close()
	})
}

// TestPowerCutsUnderRekey: each name leads to the old file or the new one, and the next rekey finishes the work.
func TestPowerCutsUnderRekey(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(8)
	for plain, content := range map[string]string{"d0/link": "d0/e0/file0", "d1/link": "d1/e1/file1"} {
		r.want[plain] = r.want[content]
		if err := os.Link(r.path(r.names[content]), r.path(r.stored(plain))); err != nil {
			t.Fatal(err)
		}
	}
	rec, store := recordRig(r)
	r.open(store)
	before := r.ids()
	r.mustRekey(RekeyOptions{})
	r.close()
	r.open(&backing.Store{})
	eachPowerCut(t, rec, 200, func(at int, dir string, store *backing.Store) {
		a := r.after(dir, store)
		a.check()
		if at%4 == 0 {
			a.mustRekey(RekeyOptions{})
			a.check()
			for plain, id := range a.ids() {
				if id == before[plain] {
					t.Errorf("%s has its old key", plain)
				}
			}
		}
		a.close()
	})
}

// TestPowerCutsUnderUpdate: envfs.json is the old one or the new one, and the new one once the update has returned.
func TestPowerCutsUnderUpdate(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{Ref: localRef("0")})
	rec, err := powercut.Record(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true, Store: &backing.Store{Hook: rec}})
	var done []int // the instant at which each update was
	for i := 1; i <= 5; i++ {
		if err := v.UpdateKeyring(localRef(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		done = append(done, rec.Now())
	}
	eachPowerCut(t, rec, 200, func(at int, dir string, store *backing.Store) {
		least := 0
		for least < len(done) && done[least] <= at {
			least++
		}
		got, err := strconv.Atoi(note(t, mustOpen(t, dir, kr, OpenOptions{Unlocked: true, Store: store}).cfg))
		if err != nil || got < least || got > least+1 {
			t.Errorf("after %d updates envfs.json is number %d, %v", least, got, err)
		}
	})
}
