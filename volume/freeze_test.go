package volume

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"golang.org/x/sys/unix"
)

// TestFreezeOrder: data is durable before a seal vouches for it, and seals are before anybody relies on the freeze.
func TestFreezeOrder(t *testing.T) {
	r := newFileRig(t)
	log := &callLog{}
	r.reopen(&backing.Store{Hook: log})
	write := func(f *File, off int64) {
		t.Helper()
		if _, err := f.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	open := r.create("open")
	write(open, 0)
	r.write("old", []byte("old content"))
	reader := r.load("old", false)
	waiting := r.create("waiting")
	write(waiting, 0)
	waiting.Release()
	empty := r.create("empty")
	all := func() []*File {
		files := []*File{open, reader, empty}
		for _, f := range files {
			if !f.Retain() {
				t.Fatal("closed")
			}
		}
		return files
	}

	log.take()
	thaw, unsealed, err := r.vol.Freeze(all)
	if err != nil || unsealed != 0 {
		t.Fatalf("%d unsealed, %v", unsealed, err)
	}
	// The file that waits: sync and seal; then the others: sync, the one seal, and the last sync.
	if got := kinds(log.take()); got != "SHFHF" {
		t.Errorf("calls %s", got)
	}
	for _, name := range []string{"open", "waiting"} {
		if h := onDisk(t, r.path(name)); h.Flags != crypto.FlagSealed || h.Size != 4 {
			t.Errorf("%s: %+v", name, h)
		}
	}
	other, err := unix.Open(r.path("open"), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := setHeaderLock(other, 1024, unix.F_WRLCK); err != nil {
		t.Errorf("a rewrap cannot lock the header: %v", err)
	}
	if err := unix.Close(other); err != nil {
		t.Error(err)
	}
	thaw()

	log.take()
	write(open, 4)
	if got := kinds(log.take()); got != "HSJCD" {
		t.Errorf("the first write after it: calls %s; want the header first, and durably, then the record", got)
	}
	if h := onDisk(t, r.path("open")); h.Flags&crypto.FlagSealed != 0 {
		t.Errorf("still sealed: %+v", h)
	}
	if got := string(readAll(t, open)); got != "datadata" {
		t.Errorf("%q", got)
	}
	for _, f := range []*File{open, reader, empty} {
		f.Release()
	}
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if h := onDisk(t, r.path("open")); h.Flags != crypto.FlagSealed || h.Size != 8 {
		t.Errorf("in the end: %+v", h)
	}
}

// failSyncFS lets one sync of the file system fail, the one numbered.
type failSyncFS struct{ number, count int }

func (h *failSyncFS) Before(c *backing.Call) error {
	if c.Op != backing.OpSyncFS {
		return nil
	}
	h.count++
	if h.count == h.number {
		return unix.EIO
	}
	return nil
}

// TestFreezeSyncFails: nothing is sealed that is not durable, nothing is held, and no sync is forgotten.
func TestFreezeSyncFails(t *testing.T) {
	r := newFileRig(t)
	broken := &failSyncFS{}
	r.reopen(&backing.Store{Hook: broken})
	f := r.create("f")
	defer f.Release()
	open := func() []*File { f.Retain(); return []*File{f} }
	for number := 1; number <= 2; number++ {
		if _, err := f.WriteAt([]byte("data"), 0); err != nil {
			t.Fatal(err)
		}
		broken.number, broken.count = number, 0
		if _, _, err := r.vol.Freeze(open); !errors.Is(err, unix.EIO) {
			t.Errorf("sync %d fails: %v", number, err)
		}
		if h := onDisk(t, r.path("f")); number == 1 && (h.Flags&crypto.FlagSealed != 0 || !f.extents.dirty.Load()) {
			t.Errorf("after a failed sync: %+v, to be synced: %v", h, f.extents.dirty.Load())
		}
		if err := r.vol.SealAll(); err != nil { // waits for ever if the sealer is held
			t.Error(err)
		}
	}
	broken.number = 0
	thaw, unsealed, err := r.vol.Freeze(open)
	if err != nil || unsealed != 0 {
		t.Fatalf("%d unsealed, %v", unsealed, err)
	}
	thaw()
}

// TestFreezeSettlesTheJournal: a copy of a frozen volume has nothing to replay.
func TestFreezeSettlesTheJournal(t *testing.T) {
	r := newFileRig(t)
	defer r.close()
	r.write("f", pattern(1, 100))
	f := r.load("f", true)
	defer f.Release()
	mustWrite(t, f, pattern(2, 50), 100)
	if !r.vol.journal.touches(f.key.id, 0, 1) {
		t.Fatal("an append without a record")
	}
	thaw, _, err := r.vol.Freeze(func() []*File {
		if !f.Retain() {
			t.Fatal("closed")
		}
		return []*File{f}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer thaw()
	if _, err := os.Lstat(r.path(CrashJournal)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal: %v", err)
	}
}

// TestFreezeLeavesAlone what may not be sealed: a file without a name, and one whose key is refused, which is counted. The sealer
// is at rest until the thaw.
func TestFreezeLeavesAlone(t *testing.T) {
	r := newFileRig(t)
	r.reopenWith(OpenOptions{
		Arena: secret.NewArena(nil), SealDelay: time.Hour, Cache: keyring.CacheOptions{TTL: 50 * time.Millisecond},
	})
	nameless, refused := r.create("nameless"), r.create("refused")
	mustWrite(t, nameless, []byte("data"), 0)
	mustWrite(t, refused, []byte("data"), 0)
	if err := os.Remove(r.path("nameless")); err != nil {
		t.Fatal(err)
	}
	nameless.Unlinked()
	kr := r.kr.(*keyringtest.Fake)
	kr.Deny()
	for deadline := time.Now().Add(time.Minute); refused.key.refusal() == nil || nameless.key.refusal() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the keys were not dropped")
		}
	}
	thaw, unsealed, err := r.vol.Freeze(func() []*File {
		if !nameless.Retain() || !refused.Retain() {
			t.Fatal("closed")
		}
		return []*File{nameless, refused}
	})
	if err != nil {
		t.Fatal(err)
	}
	if unsealed != 1 {
		t.Errorf("%d unsealed", unsealed)
	}
	if h := onDisk(t, r.path("refused")); h.Flags&crypto.FlagSealed != 0 {
		t.Error("sealed with a key that was refused")
	}
	if r.vol.sealer.round.TryLock() {
		t.Error("the sealer is not at rest")
		r.vol.sealer.round.Unlock()
	}
	thaw()
	kr.Restore()
	nameless.Release()
	refused.Release()
	r.close()
}
