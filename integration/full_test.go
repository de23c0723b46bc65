package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFilledAgainAndAgain has 8 writers fill a small disk, make room, fill it again, and empty it. Each is told that there is
// no room; what was written and closed without an error stays, to the last byte; and all the space comes back.
func TestFilledAgainAndAgain(t *testing.T) {
	needRoot(t)
	for name, flags := range map[string][]string{"writeback": nil, "writethrough": {"--cache", "writethrough"}} {
		t.Run(name, func(t *testing.T) {
			r := newPlace(t)
			r.mountFlags = append([]string{"--passphrase-file", r.pass}, flags...)
			disk := r.below("disk")
			r.mkdir(disk)
			size := fmt.Sprintf("size=%dm", min(soaking(24, 64), 64))
			if err := unix.Mount("envfs-test", disk, "tmpfs", 0, size); err != nil {
				lack(t, "cannot mount a small file system: "+err.Error())
			}
			r.dir = r.below("disk", "data")
			r.envfs("init", "--argon2-time", "1", "--passphrase-file", r.pass, r.dir).ok()
			r.mount()
			empty := room(t, disk)
			told, kept := 0, 0
			for round := range soaking(2, 50) {
				f := &filling{r: r, round: uint64(round)}
				for w := range 8 {
					f.start(w)
				}
				f.wait()
				f.check("warm")
				if round%2 == 0 {
					r.remount()
					f.check("cold")
				}
				if v := r.verify(r.dir); v.Damage+v.Unchecked > 0 || v.Files < len(f.kept) {
					t.Errorf("round %d: %+v", round, v)
				}
				told, kept = told+f.told, kept+len(f.kept)
				r.sh(`rm -r -- *`)
				r.until("the space to come back", func() bool { return room(t, disk) >= empty })
				if t.Failed() {
					return
				}
			}
			t.Logf("no room %d times, %d files checked", told, kept)
			r.umount()
			if left, err := os.ReadDir(r.dir); err != nil || len(left) != 1 {
				t.Errorf("left in the ciphertext directory: %v, %v", left, err)
			}
		})
	}
}

// room is how many bytes are free.
func room(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree * uint64(st.Bsize)
}

// filling is one round.
type filling struct {
	r       *rig
	round   uint64
	writers sync.WaitGroup

	mu   sync.Mutex
	kept map[string]keptFile // what must be there; guarded by mu
	told int                 // how often there was no room; guarded by mu
}

// writer is one of those who fill the disk.
type writer struct {
	dir  string
	kept map[string]keptFile // what it has written without an error
}

// keptFile is what must be in a file.
type keptFile struct {
	content []byte
	calls   string // how it got there
}

// start starts a writer.
func (f *filling) start(n int) {
	f.writers.Go(func() {
		w := &writer{dir: f.r.path(fmt.Sprint("writer", n)), kept: map[string]keptFile{}}
		told, err := w.fill(uint64(n), f.round)
		if err != nil {
			f.r.t.Error(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.told += told; f.kept == nil {
			f.kept = map[string]keptFile{}
		}
		maps.Copy(f.kept, w.kept)
	})
}

// fill writes until it has been told often enough that there is no room, and makes some in between.
func (w *writer) fill(file, round uint64) (told int, err error) {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return 0, err
	}
	for i := 0; told < 5; i++ {
		path := fmt.Sprintf("%s/%d%s", w.dir, i, strings.Repeat("n", i%2*200))
		switch err := w.write(path, stamped(file, 1+rand.Uint64N(300), round)); {
		case errors.Is(err, unix.ENOSPC):
			if told++; told == 2 {
				err = w.makeRoom()
			} else {
				err = nil
			}
			if err != nil {
				return told, fmt.Errorf("a full disk cannot be emptied: %w", err)
			}
		case err != nil:
			return told, err
		case i > 1000:
			return told, fmt.Errorf("%d files, and there is still room", i)
		}
	}
	return told, nil
}

// write makes a file, or makes one longer that is there. What it holds after an error is not known.
func (w *writer) write(path string, content []byte) error {
	if rand.IntN(4) == 0 {
		for path = range w.kept {
			break
		}
	}
	before, synced := w.kept[path], rand.IntN(2) == 0
	delete(w.kept, path)
	err := writeFile(path, content, synced)
	if err == nil {
		w.kept[path] = keptFile{slices.Concat(before.content, content), fmt.Sprintf("%s %d bytes, synced %t;", before.calls, len(content), synced)}
	}
	return err
}

// makeRoom removes some files, and empties the others.
func (w *writer) makeRoom() (err error) {
	entries, err := os.ReadDir(w.dir)
	for i, e := range entries {
		path := filepath.Join(w.dir, e.Name())
		if delete(w.kept, path); i%2 == 0 {
			err = errors.Join(err, os.Remove(path))
		} else {
			err = errors.Join(err, os.Truncate(path, 0))
		}
	}
	return err
}

// writeFile appends to a file, which need not be there. Nothing may be started from this process meanwhile: the child would close its
// copy of the descriptor, and Linux tells of a page that could not be written back only at the first close.
func writeFile(path string, content []byte, synced bool) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if synced {
		err = errors.Join(err, file.Sync())
	}
	return errors.Join(err, file.Close())
}

// wait waits for all writers, none of which may be stuck.
func (f *filling) wait() {
	f.r.t.Helper()
	done := make(chan struct{})
	go func() {
		f.writers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		f.r.t.Fatal("the writers are stuck")
	}
	if f.told < 8*5 || len(f.kept) == 0 {
		f.r.t.Errorf("no room %d times, %d files kept", f.told, len(f.kept))
	}
}

// check reads everything that must be there, and that all else can be read.
func (f *filling) check(when string) {
	f.r.t.Helper()
	for path, want := range f.kept {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.content) {
			f.r.t.Errorf("%s: %s: %d bytes, want %d (%s), or others, %v; %+v", when, path, len(got), len(want.content), want.calls, err, f.r.info(path))
		}
	}
	f.r.opensAll(f.r.mnt, nil)
}
