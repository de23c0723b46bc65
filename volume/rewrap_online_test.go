package volume

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// TestRewrapBesideWriters rewraps again and again while files are written, truncated, sealed and opened anew, and expects
// that neither side loses anything.
func TestRewrapBesideWriters(t *testing.T) {
	r := newRewrapRig(t)
	const writers = 4
	mirrors := make([][]byte, writers)
	for i := range writers {
		plain := fmt.Sprintf("file%d", i)
		r.want[plain] = nil
		r.create(r.stored(plain)).Release()
	}
	var stop atomic.Bool
	var work sync.WaitGroup
	t.Cleanup(func() {
		stop.Store(true)
		work.Wait()
	})
	for i := range writers {
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		stored := r.names[fmt.Sprintf("file%d", i)]
		work.Go(func() {
			for step := 0; !stop.Load() || step < 50; step++ {
				f, err := r.tryLoad(stored, true)
				if err != nil {
					t.Errorf("opening: %v", err)
					return
				}
				if got := readAll(t, f); !bytes.Equal(got, mirrors[i]) {
					t.Errorf("file %d, step %d: %d bytes that differ, want %d", i, step, len(got), len(mirrors[i]))
				}
				for range rnd.IntN(4) {
					mirrors[i] = mutate(t, rnd, f, mirrors[i], step)
				}
				if rnd.IntN(5) == 0 {
					mirrors[i] = nil
					if err := f.Truncate(0); err != nil {
						t.Errorf("emptying: %v", err)
					}
				}
				if rnd.IntN(2) == 0 {
					if err := f.Sync(true); err != nil {
						t.Errorf("sync: %v", err)
					}
				}
				f.Release()
				if err := r.vol.SealAll(); err != nil {
					t.Errorf("seal: %v", err)
				}
				if n := len(mirrors[i]); n > 0 {
					if h := onDisk(t, r.path(stored)); h.Flags&crypto.FlagSealed == 0 || h.Size != uint64(n) {
						t.Errorf("file %d, step %d: header %+v, want one that is sealed with %d bytes", i, step, h, n)
						return
					}
				}
			}
		})
	}
	const rounds = 60
	var rewrapped int64
	for range rounds {
		r.fake.Rotate()
		rewrapped += r.mustRewrap(RewrapOptions{}).Rewrapped
	}
	stop.Store(true)
	work.Wait()
	if rewrapped < rounds {
		t.Errorf("only %d files were rewrapped in %d rounds", rewrapped, rounds)
	}
	for i := range writers {
		r.want[fmt.Sprintf("file%d", i)] = append(mirrors[i], 'x')
		f := r.load(r.names[fmt.Sprintf("file%d", i)], true)
		if _, err := f.WriteAt([]byte("x"), f.Size()); err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	r.reopen(&backing.Store{})
	r.check()
	version := r.fake.Rotate()
	r.mustRewrap(RewrapOptions{})
	r.checkVersions(version)
	r.check()
}

// TestOpenFileFollowsRewrap: what an open file writes later carries the new key, whether it was sealed or not.
func TestOpenFileFollowsRewrap(t *testing.T) {
	for _, unsealed := range []bool{true, false} {
		r := newRewrapRig(t)
		r.want["f"] = []byte("content")
		r.write(r.stored("f"), r.want["f"])
		f := r.load(r.names["f"], true)
		if unsealed {
			if err := f.unseal(); err != nil {
				t.Fatal(err)
			}
		}
		r.fake.Rotate()
		r.mustRewrap(RewrapOptions{})
		if _, err := f.WriteAt([]byte("CON"), 0); err != nil {
			t.Fatal(err)
		}
		r.want["f"] = []byte("CONtent")
		f.Release()
		r.reopen(&backing.Store{})
		r.checkVersions(2)
		r.check()
	}
}

// TestOpenFileOutlivesItsOldKey: a file that is open while its volume is rewrapped works on when the old version is retired.
func TestOpenFileOutlivesItsOldKey(t *testing.T) {
	for _, rewrapped := range []bool{true, false} {
		r := newRewrapRig(t)
		r.want["f"] = []byte("content")
		r.write(r.stored("f"), r.want["f"])
		r.close()
		cfg, err := ReadConfig(r.dir)
		if err != nil {
			t.Fatal(err)
		}
		r.vol, err = Open(t.Context(), r.dir, cfg, r.fake, OpenOptions{
			Arena: secret.NewArena(nil), Cache: keyring.CacheOptions{TTL: 20 * time.Millisecond},
		})
		if err != nil {
			t.Fatal(err)
		}
		f := r.load(r.names["f"], true)
		version := r.fake.Rotate()
		if rewrapped {
			r.mustRewrap(RewrapOptions{})
		}
		r.fake.RevokeBefore(version)
		asked := r.fake.Counters().Unwraps
		buf := make([]byte, 7)
		for r.fake.Counters().Unwraps < asked+3 && err == nil { // until the key has been looked at again, and renewed
			_, err = f.ReadAt(buf, 0)
			time.Sleep(time.Millisecond)
		}
		if rewrapped && (err != nil || string(buf) != "content" || !f.Uses(r.wrappedOf(r.names["f"]))) {
			t.Errorf("rewrapped: %q, %v", buf, err)
		}
		if !rewrapped && !errors.Is(err, keyring.ErrRevoked) {
			t.Errorf("not rewrapped: %v", err)
		}
		f.Release()
	}
}

// TestOpenFileIgnoresTampering: a slot that no rewrap has made does not get its key into what an open file writes.
func TestOpenFileIgnoresTampering(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(2)
	a, b := "d0/e0/file0", "d1/e1/file1"
	f := r.load(r.names[a], true)
	if err := f.unseal(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // so that its sequence numbers are higher
		g := r.load(r.names[b], true)
		if err := g.unseal(); err != nil {
			t.Fatal(err)
		}
		g.Release()
		if err := r.vol.SealAll(); err != nil {
			t.Fatal(err)
		}
	}
	foreign, err := os.ReadFile(r.path(r.names[b]))
	if err != nil {
		t.Fatal(err)
	}
	r.change(r.names[a], func(own []byte) []byte { return append(bytes.Clone(foreign[:1024]), own[1024:]...) })
	f.Release()
	r.reopen(&backing.Store{})
	r.check()
}

// TestHeaderIsLocked: a mount waits for whoever holds the lock of a header, before it writes that or cuts it away.
func TestHeaderIsLocked(t *testing.T) {
	for name, act := range map[string]func(f *File) error{
		"unseal":   func(f *File) error { return f.unseal() },
		"truncate": func(f *File) error { return f.Truncate(0) },
		"seal": func(f *File) error {
			f.Release()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFileRig(t)
			r.write("f", []byte("data"))
			f := r.load("f", true)
			if name == "seal" {
				if _, err := f.WriteAt([]byte("D"), 0); err != nil {
					t.Fatal(err)
				}
				if err := f.Sync(true); err != nil {
					t.Fatal(err)
				}
			}
			holder, err := os.OpenFile(r.path("f"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer holder.Close()
			if err := lockHeader(int(holder.Fd()), 1024); err != nil {
				t.Fatal(err)
			}
			before := onDisk(t, r.path("f"))
			done := make(chan error)
			go func() { done <- act(f) }()
			waitForTries(t, done)
			if now := onDisk(t, r.path("f")); now != before {
				t.Errorf("written in spite of the lock: %+v", now)
			}
			if err := unlockHeader(int(holder.Fd()), 1024); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(r.path("f")); err != nil || len(b) > 0 && onDisk(t, r.path("f")) == before {
				t.Errorf("not written after the lock was given back: %v", err)
			}
			if name != "seal" {
				f.Release()
			}
		})
	}
}

// waitForTries gives the other side time to be wrong; that it needs none is no failure of the test.
func waitForTries(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
}

// TestHeaderLockGivesUp: somebody who may read a file could lock it for ever.
func TestHeaderLockGivesUp(t *testing.T) {
	path := t.TempDir() + "/f"
	writeFile(t, path, "x")
	synctest.Test(t, func(t *testing.T) {
		holder, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(holder)
		if err := setHeaderLock(holder, 0, unix.F_RDLCK); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		start := time.Now()
		if err := lockHeader(fd, 1024); !errors.Is(err, unix.EBUSY) || time.Since(start) < headerLockWait {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if err := setHeaderLock(holder, 0, unix.F_UNLCK); err != nil {
			t.Fatal(err)
		}
		if err := lockHeader(fd, 1024); err != nil {
			t.Error(err)
		}
		if err := setHeaderLock(holder, 1024, unix.F_RDLCK); err != unix.EAGAIN {
			t.Errorf("a second lock: %v", err)
		}
	})
}

// TestRewrapReadOnlyFiles: an owner may rewrap a file whose mode forbids writing, and the mode stays.
func TestRewrapReadOnlyFiles(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(1)
	path := r.path(r.names["d0/e0/file0"])
	if err := os.Chmod(path, 0o440); err != nil {
		t.Fatal(err)
	}
	r.close()
	r.fake.Rotate()
	refused := false
	store := &backing.Store{Hook: openHook(func(c *backing.Call) error {
		if c.Name != "" || c.Flags&unix.O_ACCMODE != unix.O_RDWR {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Fstat(c.FD, &st); err != nil || st.Mode&0o200 != 0 {
			return err
		}
		refused = true
		return unix.EACCES // as for all but root
	})}
	r.mustRewrap(RewrapOptions{Store: store})
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&0o7777 != 0o440 || !refused {
		t.Errorf("mode %#o, refused %v, %v", st.Mode, refused, err)
	}
	r.checkVersions(2)
}

// readHook is called before each read of a header.
type readHook func() error

func (h readHook) Before(c *backing.Call) error {
	if c.Op != backing.OpRead || c.Offset != 0 || c.Size != 1024 {
		return nil
	}
	return h()
}

// TestRewrapLooksAgain changes a file between the look at its size and the reading of its header.
func TestRewrapLooksAgain(t *testing.T) {
	for name, test := range map[string]struct {
		change func(f *File, path string, look int) error
		want   RewrapCount
		failed error
	}{
		"emptied": {func(f *File, _ string, _ int) error { return f.Truncate(0) }, RewrapCount{Empty: 1}, nil},
		"torn once": {
			func(_ *File, path string, look int) error { return flipSlot(path, look <= 2) }, RewrapCount{Files: 1, Rewrapped: 1}, nil,
		},
		"damaged": {
			func(_ *File, path string, look int) error { return flipSlot(path, look == 1) },
			RewrapCount{Files: 1, Failed: 1}, crypto.ErrChecksum,
		},
		"never at rest": {
			func(_ *File, path string, look int) error { return os.Truncate(path, int64(look)) },
			RewrapCount{Files: 1, Failed: 1}, ErrFileChanged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRewrapRig(t)
			r.write(r.stored("f"), []byte("content"))
			f := r.load(r.names["f"], true)
			defer f.Release()
			r.fake.Rotate()
			look := 0
			store := &backing.Store{Hook: readHook(func() error {
				look++
				return test.change(f, r.path(r.names["f"]), look)
			})}
			result, failed, err := r.rewrap(RewrapOptions{Store: store})
			test.want.Complete, test.want.VolumeKey = true, true
			if result.RewrapCount != test.want || err != nil || !errors.Is(failed[r.names["f"]], test.failed) {
				t.Errorf("%+v, want %+v; failed %v, want %v; %v", result.RewrapCount, test.want, failed, test.failed, err)
			}
		})
	}
}

// flipSlot flips a bit in each slot of a header, or does nothing.
func flipSlot(path string, flip bool) error {
	if !flip {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[100] ^= 1
	b[612] ^= 1
	return os.WriteFile(path, b, 0)
}
