package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// TestRewrap moves a tree of all kinds of files to a new version.
func TestRewrap(t *testing.T) {
	for _, mounted := range []bool{true, false} {
		t.Run(fmt.Sprintf("mounted %v", mounted), func(t *testing.T) { rewrapAll(t, mounted) })
	}
}

func rewrapAll(t *testing.T, mounted bool) {
	r := newRewrapRig(t)
	const files = 300
	r.fill(files)
	long := strings.Repeat("long", 60)
	r.want[long] = []byte("long name")
	r.write(r.stored(long), r.want[long])
	r.create(r.stored("empty")).Release()
	hollow := r.path(r.stored("hollow"))
	writeFile(t, hollow, strings.Repeat("\x00", 1024))
	writeFile(t, r.path("README"), "foreign")
	if err := os.Link(r.path(r.names["d0/e0/file0"]), r.path(r.stored("d1/link"))); err != nil {
		t.Fatal(err)
	}
	unsealed := r.load(r.names["d1/e1/file1"], true) // one that is being written
	if err := unsealed.unseal(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.path(r.names["d2/e2/file2"]), 0o400); err != nil {
		t.Fatal(err)
	}
	if !mounted {
		unsealed.Release()
		r.close()
	}
	before := r.times()
	r.fake.Rotate()
	asked := r.fake.Counters()

	result := r.mustRewrap(RewrapOptions{})
	if result.Version != 2 || result.Rewrapped != files+1 || result.Empty != 2 || !result.VolumeKey {
		t.Errorf("result: %+v", result)
	}
	if got := r.times(); !maps.Equal(got, before) {
		t.Error("modes or times have changed")
	}
	now := r.fake.Counters()
	if now.Unwraps != asked.Unwraps || now.Wraps != asked.Wraps {
		t.Errorf("keys were unwrapped or wrapped: %+v, before %+v", now, asked)
	}
	if n := now.Rewraps - asked.Rewraps; n != 1+3 || now.Largest > keyring.DefaultBatch {
		t.Errorf("%d requests of at most %d items", n, now.Largest)
	}
	if mounted {
		unsealed.Release()
	}
	r.reopen(&backing.Store{})
	r.check()
	r.checkVersions(2)
	if b, err := os.ReadFile(r.path("README")); err != nil || string(b) != "foreign" {
		t.Errorf("the foreign file: %q, %v", b, err)
	}

	again := r.mustRewrap(RewrapOptions{})
	if again.Rewrapped != 0 || again.Current != files+1 || again.VolumeKey || r.fake.Counters().Rewraps != now.Rewraps {
		t.Errorf("once more: %+v", again)
	}
}

// times returns mode and times of all files.
func (r *rewrapRig) times() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	for plain, stored := range r.names {
		var st unix.Stat_t
		if err := unix.Stat(r.path(stored), &st); err != nil {
			r.t.Fatal(err)
		}
		all[plain] = fmt.Sprint(st.Mode, st.Size, st.Atim, st.Mtim)
	}
	return all
}

func TestRewrapDryRun(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(20)
	r.close()
	r.fake.Rotate()
	before, asked := r.snapshot(), r.fake.Counters()
	result := r.mustRewrap(RewrapOptions{DryRun: true})
	if result.Rewrapped != 20 || !result.VolumeKey {
		t.Errorf("result: %+v", result)
	}
	if !maps.Equal(before, r.snapshot()) {
		t.Error("something has changed")
	}
	if r.fake.Counters() != asked {
		t.Error("keys were sent")
	}
}

// TestRewrapFailures has some files fail, each for another reason, and expects the others to be done.
func TestRewrapFailures(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(150)
	file := func(i int) string { return r.names[fmt.Sprintf("d%d/e%d/file%d", i%3, i%7, i)] }
	r.close()
	want := map[string]error{}
	damage := func(i int, class error, change func(b []byte) []byte) {
		r.change(file(i), change)
		want[file(i)] = class
	}
	damage(3, crypto.ErrChecksum, func(b []byte) []byte { b[100] ^= 1; b[700] ^= 1; return b })
	damage(4, crypto.ErrTruncatedHeader, func(b []byte) []byte { return b[:1000] })
	damage(5, crypto.ErrBadMagic, func(b []byte) []byte { return []byte(strings.Repeat("x", 2000)) })
	damage(6, ErrOtherVolume, func(b []byte) []byte { b[512-96+8] ^= 1; b[1024-96+8] ^= 1; fixChecksums(b); return b })
	damage(7, crypto.ErrUnsupported, func(b []byte) []byte { b[512-96] ^= 2; b[1024-96] ^= 2; fixChecksums(b); return b })
	refused := &keyring.Error{Class: keyring.ErrRevoked}
	r.fake.FailItem(r.wrappedOf(file(8)), refused)
	want[file(8)] = keyring.ErrRevoked
	damage(9, keyring.ErrCorrupt, func(b []byte) []byte {
		i := strings.Index(string(b[512:1024]), "fake:v1:") + 512
		b[i+20] ^= 1
		fixChecksums(b)
		return b
	})
	r.fake.Rotate()

	result, failed, err := r.rewrap(RewrapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for rel, class := range want {
		if !errors.Is(failed[rel], class) {
			t.Errorf("%s: %v, want %v", rel, failed[rel], class)
		}
	}
	if len(failed) != len(want) || result.Failed != int64(len(want)) || result.Rewrapped != 150-int64(len(want)) || result.Files != 150 {
		t.Errorf("%d failed: %+v", len(failed), result)
	}
	for plain, stored := range r.names {
		if want[stored] != nil {
			delete(r.want, plain)
		}
	}
	r.checkVersions(2)
	r.open(&backing.Store{})
	r.check()
}

func (r *rewrapRig) wrappedOf(stored string) keyring.Wrapped {
	r.t.Helper()
	info, err := os.ReadFile(r.path(stored))
	if err != nil {
		r.t.Fatal(err)
	}
	slot, _, err := crypto.NewestSlot(info, 512)
	if err != nil {
		r.t.Fatal(err)
	}
	return keyring.Wrapped(slot.Wrapped)
}

// failingRewrapper fails from a given request on.
type failingRewrapper struct {
	RewrapKeyring
	left atomic.Int64
	fail func() error
}

func (f *failingRewrapper) Rewrap(ctx context.Context, w []keyring.Wrapped) ([]keyring.Rewrapped, error) {
	if f.left.Add(-1) < 0 {
		return nil, f.fail()
	}
	return f.RewrapKeyring.Rewrap(ctx, w)
}

// TestRewrapStops ends a rewrap in the midst of it: what was answered is written, and the next one does the rest only.
func TestRewrapStops(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		name string
		ctx  context.Context
		fail func() error
		want error
	}{
		{"unreachable", t.Context(), func() error { return &keyring.Error{Class: keyring.ErrUnreachable} }, keyring.ErrUnreachable},
		{"denied", t.Context(), func() error { return &keyring.Error{Class: keyring.ErrDenied} }, keyring.ErrDenied},
		{"cancelled", cancelled, func() error { cancel(); return cancelled.Err() }, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRewrapRig(t)
			const files = 5 * keyring.DefaultBatch
			r.fill(files)
			r.close()
			r.fake.Rotate()
			kr := &failingRewrapper{RewrapKeyring: r.fake, fail: c.fail}
			kr.left.Store(1 + 3) // the volume key and three batches
			result, failed, err := r.rewrapWith(c.ctx, RewrapOptions{Keyring: kr})
			if !errors.Is(err, c.want) || len(failed) > 0 {
				t.Fatalf("error %v, failed %v", err, failed)
			}
			if result.Rewrapped != 3*keyring.DefaultBatch {
				t.Errorf("%d files were done, want those of 3 batches: %+v", result.Rewrapped, result)
			}
			rest := r.mustRewrap(RewrapOptions{})
			if rest.Rewrapped != files-result.Rewrapped || rest.Current != result.Rewrapped {
				t.Errorf("the second: %+v", rest)
			}
			r.checkVersions(2)
			r.open(&backing.Store{})
			r.check()
		})
	}
}

// TestRewrapRefusedAtOnce: a key service that refuses does so before anything is changed.
func TestRewrapRefusedAtOnce(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(3)
	r.close()
	r.fake.Rotate()
	before := r.snapshot()
	r.fake.Deny()
	if _, _, err := r.rewrap(RewrapOptions{}); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("error %v", err)
	}
	r.fake.Outage()
	if _, _, err := r.rewrap(RewrapOptions{}); !errors.Is(err, keyring.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
	if !maps.Equal(before, r.snapshot()) {
		t.Error("something has changed")
	}
	if _, err := Rewrap(t.Context(), t.TempDir(), RewrapOptions{Keyring: r.fake}); !errors.Is(err, ErrNotVolume) {
		t.Errorf("no volume: %v", err)
	}
}

// TestRewrapAlone takes the mount lock, and needs no other.
func TestRewrapAlone(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(3)
	r.fake.Rotate()
	if _, _, err := r.rewrap(RewrapOptions{Alone: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("of a volume in use: %v", err)
	}
	r.close()
	r.mustRewrap(RewrapOptions{Alone: true})
	r.checkVersions(2)
	r.open(&backing.Store{}) // the lock was given back
	r.check()
}

// TestRewrapKeepsForeignOwner: only the owner of a file can set its times back, so others leave it alone.
func TestRewrapKeepsForeignOwner(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(2)
	stored := r.names["d0/e0/file0"]
	r.close()
	r.fake.Rotate()
	store := &backing.Store{Hook: openHook(func(c *backing.Call) error {
		if c.Name == filepath.Base(stored) && c.Flags&unix.O_NOATIME != 0 {
			return unix.EPERM // what others than the owner are told
		}
		return nil
	})}
	result, failed, err := r.rewrap(RewrapOptions{Store: store})
	if err != nil || !errors.Is(failed[stored], os.ErrPermission) || len(failed) != 1 || result.Rewrapped != 1 {
		t.Errorf("%+v, failed %v, %v", result, failed, err)
	}
}

type openHook func(c *backing.Call) error

func (h openHook) Before(c *backing.Call) error {
	if c.Op != backing.OpOpen {
		return nil
	}
	return h(c)
}
