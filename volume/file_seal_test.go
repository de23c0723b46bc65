package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"golang.org/x/sys/unix"
)

// fixChecksums makes both slots' checksums right for what the slots hold.
func fixChecksums(file []byte) {
	for _, slot := range [][]byte{file[:512], file[512:1024]} {
		sum := sha256.Sum256(slot[:512-16])
		copy(slot[512-16:], sum[:])
	}
}

// onDisk returns the header that counts, as it is on disk.
func onDisk(t *testing.T, path string) crypto.Header {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	slot, _, err := crypto.NewestSlot(b[:1024], 512)
	if err != nil {
		t.Fatal(err)
	}
	h, err := slot.Sealed.Peek()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// callLog records the calls that matter for the order of writes.
type callLog struct {
	mu    sync.Mutex
	calls []backing.Call
}

func (l *callLog) Before(c *backing.Call) error {
	switch c.Op {
	case backing.OpWrite, backing.OpSync, backing.OpSyncFS, backing.OpTruncate:
		l.mu.Lock()
		l.calls = append(l.calls, backing.Call{Op: c.Op, FD: c.FD, Offset: c.Offset, Size: c.Size, Name: nameBehind(c.FD)})
		l.mu.Unlock()
	}
	return nil
}

func (l *callLog) take() []backing.Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = nil
	return calls
}

// kinds spells calls out: H a write into the header, D a write of data, S a sync of the file, F of the file system, T a
// truncation; J a write into the journal, C its sync. How the journal is made is left out.
func kinds(calls []backing.Call) string {
	var s []byte
	for _, c := range calls {
		switch {
		case c.Name == journalTemp, c.Name == "cipher" && c.Op == backing.OpSync:
		case c.Name == CrashJournal && c.Op == backing.OpSync:
			s = append(s, 'C')
		case c.Name == CrashJournal:
			s = append(s, 'J')
		case c.Op == backing.OpSync:
			s = append(s, 'S')
		case c.Op == backing.OpSyncFS:
			s = append(s, 'F')
		case c.Op == backing.OpTruncate:
			s = append(s, 'T')
		case c.Offset < 1024:
			s = append(s, 'H')
		default:
			s = append(s, 'D')
		}
	}
	return string(s)
}

// TestSealOrder asserts the order of writes and syncs on which crash safety rests.
func TestSealOrder(t *testing.T) {
	r := newFileRig(t)
	log := &callLog{}
	r.reopen(&backing.Store{Hook: log})
	step := func(what, want string, do func()) {
		t.Helper()
		log.take()
		do()
		if got := kinds(log.take()); got != want {
			t.Errorf("%s: calls %s, want %s", what, got, want)
		}
	}
	write := func(f *File, off int64) func() {
		return func() {
			if _, err := f.WriteAt([]byte("data"), off); err != nil {
				t.Fatal(err)
			}
		}
	}
	seal := func() {
		if err := r.vol.SealAll(); err != nil {
			t.Fatal(err)
		}
	}

	f := r.create("f")
	step("first write to a new file: no sync", "HD", write(f, 0))
	step("second write", "D", write(f, 10))
	step("close", "", f.Release)
	step("seal: data first, header after", "SH", seal)
	if h := onDisk(t, r.path("f")); h.Flags != crypto.FlagSealed || h.Size != 14 {
		t.Errorf("sealed header: %+v", h)
	}

	f = r.load("f", true)
	step("first write to a sealed file: unsealed and synced before data, and recorded", "HSJCD", write(f, 4))
	if h := onDisk(t, r.path("f")); h.Flags&crypto.FlagSealed != 0 {
		t.Errorf("header while it is written: %+v", h)
	}
	step("fsync", "S", func() {
		if err := f.Sync(true); err != nil {
			t.Fatal(err)
		}
	})
	step("close of a synced file: sealed at once", "H", f.Release)

	f = r.load("f", true)
	step("truncate to nothing needs no header, but takes records back", "JCT", func() {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
	})
	step("write after it: header synced before data", "HSD", write(f, 0))
	f.Release()
	seal()

	f = r.create("g")
	if err := f.Sync(false); err != nil { // the application is told that the empty file will last
		t.Fatal(err)
	}
	step("first write after an fsync: header synced before data", "HSD", write(f, 0))
	f.Release()
	seal()

	f = r.create("h")
	if err := r.vol.SyncNewFiles(); err != nil {
		t.Fatal(err)
	}
	step("first write after a directory fsync", "HSD", write(f, 0))
	f.Release()
	seal()

	f = r.load("h", false)
	step("reading", "", func() { readAll(t, f) })
	step("close of a file that was read", "", f.Release)
}

// TestSealKeepsTimes: no application changed the file, so its times stay.
func TestSealKeepsTimes(t *testing.T) {
	r := newFileRig(t)
	f := r.create("f")
	if _, err := f.WriteAt([]byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	want := unix.Timespec{Sec: 1_000_000_000, Nsec: 123_456_789}
	if err := r.vol.store.SetTimes(f.target(), want, want); err != nil {
		t.Fatal(err)
	}
	f.Release()
	r.reopen(&backing.Store{})
	var st unix.Stat_t
	if err := unix.Stat(r.path("f"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Mtim != want || st.Atim != want {
		t.Errorf("mtime %v, atime %v, want %v", st.Mtim, st.Atim, want)
	}
	if h := onDisk(t, r.path("f")); h.Flags&crypto.FlagSealed == 0 {
		t.Error("the file is not sealed")
	}
}

// TestUnsealedFileOpens is what remains after a crash: the file opens, whatever its size says.
func TestUnsealedFileOpens(t *testing.T) {
	r := newFileRig(t)
	f := r.create("f")
	want := pattern(1, 3*block)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	crashed, err := os.ReadFile(r.path("f")) // as it is before the seal
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	for _, blocks := range []int{0, 1, 2, 3} {
		cut := crashed[:1024+blocks*crypto.CipherBlockSize]
		if err := os.WriteFile(r.path("x"), cut, 0o600); err != nil {
			t.Fatal(err)
		}
		f := r.load("x", false)
		if got := readAll(t, f); !bytes.Equal(got, want[:blocks*block]) {
			t.Errorf("%d blocks on disk: %d bytes read", blocks, len(got))
		}
		f.Release()
	}
}

// TestHollowHeader: a power cut may leave the size of the first header write without its bytes. That is an empty file.
func TestHollowHeader(t *testing.T) {
	r := newFileRig(t)
	if err := os.WriteFile(r.path("f"), make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	f := r.load("f", true)
	if f.Size() != 0 {
		t.Errorf("size %d", f.Size())
	}
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	f.Release()
	r.reopen(&backing.Store{})
	f = r.load("f", false)
	defer f.Release()
	if got := readAll(t, f); string(got) != "new" {
		t.Errorf("read %q", got)
	}
}

// TestRetainWhileWaitingForSeal: a file opened again before it was sealed goes on where it was.
func TestRetainWhileWaitingForSeal(t *testing.T) {
	r := newFileRig(t)
	f := r.create("f")
	if _, err := f.WriteAt([]byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	f.Release()
	if !f.Retain() {
		t.Fatal("the file was closed before it was sealed")
	}
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("two"), 3); err != nil {
		t.Fatal(err)
	}
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if f.Retain() {
		t.Error("the file is open after it was sealed")
	}
	if h := onDisk(t, r.path("f")); h.Flags&crypto.FlagSealed == 0 || h.Size != 6 {
		t.Errorf("header %+v", h)
	}
}

// TestSealOfTornTail: what a power cut leaves of an append must not make the file unreadable once it is written to again.
func TestSealOfTornTail(t *testing.T) {
	for _, tail := range []int{1, crypto.BlockOverhead} {
		r := newFileRig(t)
		want := pattern(1, 2*block)
		f := r.create("f")
		if _, err := f.WriteAt(want, 0); err != nil {
			t.Fatal(err)
		}
		unsealed, err := os.ReadFile(r.path("f"))
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
		if err := os.WriteFile(r.path("f"), append(unsealed, pattern(2, int64(tail))...), 0o600); err != nil {
			t.Fatal(err)
		}
		r.reopen(&backing.Store{})
		r.load("f", true).Release() // opened for writing, which is enough for a seal
		r.reopen(&backing.Store{})
		f, err = r.tryLoad("f", false)
		if err != nil {
			t.Fatalf("%d bytes behind the last block: %v", tail, err)
		}
		if got := readAll(t, f); !bytes.Equal(got, want) || f.header.get() != headerSealed {
			t.Errorf("%d bytes behind the last block: state %v, or another content", tail, f.header.get())
		}
		f.Release()
	}
}

// TestRefusedFilesCloseWithoutAsking: the end of a mount must not wait for the key service for each file whose key was refused.
func TestRefusedFilesCloseWithoutAsking(t *testing.T) {
	r := newFileRig(t)
	r.reopenWith(OpenOptions{
		Arena: secret.NewArena(nil), SealDelay: time.Hour, Cache: keyring.CacheOptions{TTL: 50 * time.Millisecond},
	})
	f := r.create("f")
	if _, err := f.WriteAt([]byte("unsealed"), 0); err != nil {
		t.Fatal(err)
	}
	kr := r.kr.(*keyringtest.Fake)
	kr.Deny()
	for deadline := time.Now().Add(20 * time.Second); r.vol.Stats().Cache.Dropped == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the key was not dropped")
		}
	}
	before := kr.Counters().Unwraps
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Error(err)
	}
	if asked := kr.Counters().Unwraps - before; asked != 0 {
		t.Errorf("%d requests", asked)
	}
	kr.Restore()
	r.close()
	if h := onDisk(t, r.path("f")); h.Flags&crypto.FlagSealed != 0 {
		t.Error("sealed with a key that was refused")
	}
}

// TestMakersWaitForASlowDisk: files that wait to be sealed hold descriptors, of which there must always be some left.
func TestMakersWaitForASlowDisk(t *testing.T) {
	r := newFileRig(t)
	const most = 4
	r.vol.sealer.most = most
	r.vol.sealer.round.Lock() // the disk is slow
	for i := range most {
		f := r.create(fmt.Sprint("f", i))
		if _, err := f.WriteAt([]byte("unsealed"), 0); err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.vol.WaitForRoom(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more: %v, want it to wait", err)
	}
	r.vol.sealer.round.Unlock()
	if err := r.vol.WaitForRoom(t.Context()); err != nil {
		t.Error(err)
	}
}
