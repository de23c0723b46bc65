package volume

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// TestJournalOrder asserts the order of calls on which the journal rests: a record is durable before anything changes in place,
// and a sync of what has records costs nothing more.
func TestJournalOrder(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, 3*block+100))
	log := &callLog{}
	r.reopen(&backing.Store{Hook: log})
	f := r.load("f", true)
	defer f.Release()
	mustWrite(t, f, []byte("first"), 0) // unseals, and makes the journal
	if err := f.Sync(false); err != nil {
		t.Fatal(err)
	}
	log.take()
	sync := func() error { return f.Sync(false) }
	write := func(off, n int64) func() error {
		return func() error { _, err := f.WriteAt(pattern(2, n), off); return err }
	}
	for _, step := range []struct {
		what, want string
		do         func() error
	}{
		{"append to the last block", "JCD", write(3*block+100, 100)},
		{"fsync of it", "", sync},
		{"append across the edge of a block", "JCD", write(3*block+200, block)},
		{"fsync of it", "", sync},
		{"a part of a block", "JCD", write(2*block+7, 9)},
		{"shrink into a block, for whose end the header must not vouch then", "HSJCDT", func() error { return f.Truncate(2*block + 100) }},
		{"fsync of it", "", sync},
		{"large append, recorded in its first block only", "SJC" + "JC" + "D", write(2*block+100, 30*block)},
		{"fsync of it", "S", sync},
		{"whole blocks without records", "D", write(10*block, 2*block)},
		{"fsync of them", "S", sync},
		{"small overwrite of a block with a record", "JCD", write(2*block, block)},
		{"large overwrite of a block with a record", "SJCD", write(block, 20*block)},
		{"a hole", "JC", func() error { return f.ZeroRange(4*block, 2*block, true) }},
		{"truncate to nothing", "SJCT", func() error { return f.Truncate(0) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if got := kinds(log.take()); got != step.want {
			t.Errorf("%s: calls %s, want %s", step.what, got, step.want)
		}
	}
}

// TestNewFilesNeedNoRecords until somebody asks for durability, or so much time has passed that he may believe in it.
func TestNewFilesNeedNoRecords(t *testing.T) {
	r := newFileRig(t)
	log := &callLog{}
	r.reopen(&backing.Store{Hook: log})
	f := r.create("f")
	defer f.Release()
	mustWrite(t, f, pattern(1, 100), 0)
	mustWrite(t, f, pattern(2, 100), 50)
	if got := kinds(log.take()); got != "HDD" {
		t.Errorf("a new file: calls %s", got)
	}
	mustSync(t, f)
	log.take()
	mustWrite(t, f, pattern(3, 100), 100)
	if got := kinds(log.take()); got != "JCD" {
		t.Errorf("a new file that was synced: calls %s", got)
	}
}

func TestOldFilesNeedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &File{born: time.Now()}
		if f.precious() {
			t.Error("a file just made is precious")
		}
		time.Sleep(writebackAge)
		if !f.precious() {
			t.Error("one that the kernel has written back long ago is not")
		}
		f.unlinked.Store(true)
		if f.precious() {
			t.Error("one without a name is")
		}
	})
}

// TestSyncedSurvives: what was synced is there after a power cut that loses all that was not, and after one that loses nothing.
func TestSyncedSurvives(t *testing.T) {
	const size = 2*block + 500
	for _, c := range []struct {
		name string
		do   func(t *testing.T, f *File, b []byte) []byte
	}{
		{"append", func(t *testing.T, f *File, b []byte) []byte {
			for i := range int64(40) {
				p := pattern(uint64(i), 333)
				mustWrite(t, f, p, int64(len(b)))
				b = append(b, p...)
			}
			return b
		}},
		{"a part, then the whole block", func(t *testing.T, f *File, b []byte) []byte {
			mustWrite(t, f, pattern(2, 10), block+5)
			mustSync(t, f)
			mustWrite(t, f, pattern(3, block), block)
			copy(b[block:], pattern(3, block))
			return b
		}},
		{"a part, then many whole blocks", func(t *testing.T, f *File, b []byte) []byte {
			mustWrite(t, f, pattern(2, 10), block+5)
			mustSync(t, f)
			mustWrite(t, f, pattern(3, 40*block), 0)
			return pattern(3, 40*block)
		}},
		{"shrink", func(t *testing.T, f *File, b []byte) []byte {
			mustWrite(t, f, pattern(2, 10), int64(len(b)))
			mustTruncate(t, f, block+7)
			return b[:block+7]
		}},
		{"shrink and grow again", func(t *testing.T, f *File, b []byte) []byte {
			mustTruncate(t, f, block+7)
			mustTruncate(t, f, 9*block)
			mustWrite(t, f, []byte("end"), 8*block)
			b = resized(b[:block+7], 9*block)
			copy(b[8*block:], "end")
			return b
		}},
		{"empty and write again", func(t *testing.T, f *File, b []byte) []byte {
			mustWrite(t, f, pattern(2, 10), block+5)
			mustTruncate(t, f, 0)
			mustWrite(t, f, pattern(4, 2*block), 0)
			return pattern(4, 2*block)
		}},
		{"punch what was just written", func(t *testing.T, f *File, b []byte) []byte {
			mustWrite(t, f, pattern(2, 2000), int64(len(b)))
			b = zeroed(append(b, pattern(2, 2000)...), block, 2*block)
			if err := f.ZeroRange(block, 2*block, true); err != nil {
				t.Fatal(err)
			}
			return b
		}},
	} {
		for _, cut := range []func(int) int{loseAll, loseNone} {
			t.Run(c.name, func(t *testing.T) {
				r := newFileRig(t)
				r.write("f", pattern(1, size))
				d := newDisk()
				d.begin(r)
				f := r.load("f", true)
				mustSync(t, f) // the first one has much to do
				want := c.do(t, f, pattern(1, size))
				mustSync(t, f)
				d.fail(r, cut)
				d.begin(r)
				if got := r.content("f"); !bytes.Equal(got, want) {
					t.Errorf("%d bytes are left of %d, or others", len(got), len(want))
				}
				if _, err := os.Stat(r.path(CrashJournal)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the journal is still there: %v", err)
				}
			})
		}
	}
}

// TestRecordsOfAClosedFile: a file that was sealed keeps its records in mind when it is opened again.
func TestRecordsOfAClosedFile(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, 3*block))
	d := newDisk()
	d.begin(r)
	f := r.load("f", true)
	mustWrite(t, f, pattern(2, 100), block)
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if r.vol.journal.open != 0 {
		t.Error("the journal keeps a sealed file open")
	}
	f = r.load("f", true)
	mustWrite(t, f, pattern(3, 3*block), 0)
	mustSync(t, f)
	d.fail(r, loseAll)
	d.begin(r)
	if !bytes.Equal(r.content("f"), pattern(3, 3*block)) {
		t.Error("the replay brought an old block back")
	}
}

// TestGenerations: records of the generation before, which still stand behind those of the present one, do not count.
func TestGenerations(t *testing.T) {
	r := newFileRig(t)
	r.journalSize = 80 << 10
	r.write("f", pattern(1, 2*block))
	d := newDisk()
	d.begin(r)
	f := r.load("f", true)
	want := pattern(1, 2*block)
	for i := 0; r.vol.journal.header.generation < 4; i++ {
		off := int64(i) % (2*block - 10)
		mustWrite(t, f, pattern(uint64(i), 10), off)
		copy(want[off:], pattern(uint64(i), 10))
	}
	mustSync(t, f)
	d.fail(r, loseAll)
	log := r.logged()
	d.begin(r)
	if !bytes.Equal(r.content("f"), want) {
		t.Error("what was synced is not there")
	}
	if !strings.Contains(log.String(), "blocks=1 files=1") {
		t.Errorf("more than the one record of the last generation was replayed: %s", log)
	}
}

// TestCleanEnd: after a mount that came to its end there is no journal, and files that were deleted are let go at once.
func TestCleanEnd(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, 100))
	r.write("g", pattern(1, 100))
	for _, name := range []string{"f", "g"} {
		f := r.load(name, true)
		mustWrite(t, f, []byte("more"), 100)
		if name == "g" {
			if err := os.Remove(r.path(name)); err != nil {
				t.Fatal(err)
			}
			f.Unlinked()
		}
		f.Release()
	}
	if got := r.vol.journal.open; got != 1 {
		t.Errorf("%d files are open in the journal, want 1", got)
	}
	if _, err := os.Stat(r.path(CrashJournal)); err != nil {
		t.Error(err)
	}
	r.close()
	if _, err := os.Stat(r.path(CrashJournal)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is still there: %v", err)
	}
}

// TestSealedHeaderIsUnlocked although the journal has a descriptor of the same open file.
func TestSealedHeaderIsUnlocked(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, 100))
	r.write("g", pattern(1, 100))
	f := r.load("f", true)
	mustWrite(t, f, []byte("more"), 100)
	second, err := r.vol.store.Dup(f.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(second)
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	other, err := unix.Open(r.path("f"), unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if err := setHeaderLock(other, 1024, unix.F_WRLCK); err != nil {
		t.Errorf("the header of a sealed file is locked: %v", err)
	}
}

// TestReplayInterrupted lets the power fail before each call of a replay, and wants the same result in the end.
func TestReplayInterrupted(t *testing.T) {
	for at, done := 1, false; !done; at++ {
		if at > 30 {
			t.Fatal("the replay never ends")
		}
		r := newFileRig(t)
		r.write("f", pattern(1, 2*block+500))
		d := newDisk()
		d.begin(r)
		f := r.load("f", true)
		mustSync(t, f)
		mustTruncate(t, f, block+100)
		mustWrite(t, f, pattern(3, 2*block), block+100)
		mustSync(t, f)
		want := append(pattern(1, 2*block)[:block+100:block+100], pattern(3, 2*block)...)
		d.fail(r, func(n int) int { return n / 2 })
		store := d.store()
		d.cutAt = at
		done = r.tryOpen(store) == nil
		d.fail(r, func(n int) int { return n / 2 })
		d.begin(r)
		if got := r.content("f"); !bytes.Equal(got, want) {
			t.Errorf("interrupted at call %d: %d bytes, want %d, or others", at, len(got), len(want))
		}
		r.close()
	}
}

// crashed makes a volume with a file of which a synced append is in the journal only.
func crashed(t *testing.T) (*fileRig, []byte) {
	r := newFileRig(t)
	r.write("f", pattern(1, 500))
	d := newDisk()
	d.begin(r)
	f := r.load("f", true)
	mustSync(t, f) // the first one has much to do; the next one nothing
	mustWrite(t, f, pattern(2, 300), 500)
	mustSync(t, f)
	d.fail(r, loseAll)
	return r, append(pattern(1, 500), pattern(2, 300)...)
}

// TestReplayFault fails each call of a replay: the mount fails, the journal stays, and the next mount succeeds.
func TestReplayFault(t *testing.T) {
	for at := int64(1); ; at++ {
		r, want := crashed(t)
		h := &hook{at: at, action: func() error { return unix.ENOSPC }, ops: []backing.Op{
			backing.OpRead, backing.OpWrite, backing.OpTruncate, backing.OpSync, backing.OpUnlink, backing.OpSetattr, backing.OpReaddir,
		}}
		err := r.tryOpen(&backing.Store{Hook: h})
		if h.count.Load() < at {
			if at < 8 || err != nil {
				t.Errorf("%d calls: %v", at-1, err)
			}
			return
		}
		// An entry that cannot be looked at is no matter once all files are found.
		if err == nil && !bytes.Equal(r.content("f"), want) || err != nil && !(errors.Is(err, unix.ENOSPC) && errors.Is(err, ErrReplay)) && at > 1 { // the first one reads envfs.json
			t.Errorf("call %d fails, and the mount with %v", at, err)
		}
		r.close()
		r.open(&backing.Store{})
		if !bytes.Equal(r.content("f"), want) {
			t.Errorf("after call %d has failed, the next mount does not find what was synced", at)
		}
	}
}

// TestCopiedVolume: the journal of a copy is replayed, but into no file that is newer.
func TestCopiedVolume(t *testing.T) {
	for _, newer := range []bool{false, true} {
		r, want := crashed(t)
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(r.dir)); err != nil {
			t.Fatal(err)
		}
		r.dir = dir
		mtime := time.Now()
		if newer {
			mtime, want = mtime.Add(time.Minute), pattern(1, 500)
		}
		if err := os.Chtimes(r.path("f"), mtime, mtime); err != nil {
			t.Fatal(err)
		}
		r.open(&backing.Store{})
		if got := r.content("f"); !bytes.Equal(got, want) {
			t.Errorf("newer: %v: %d bytes, want %d, or others", newer, len(got), len(want))
		}
	}
}

// TestReadOnlyReplay: a mount that only reads replays, unless others are reading already.
func TestReadOnlyReplay(t *testing.T) {
	r, want := crashed(t)
	r.readOnly = true
	journal, err := os.ReadFile(r.path(CrashJournal))
	if err != nil {
		t.Fatal(err)
	}
	r.open(&backing.Store{})
	if !bytes.Equal(r.content("f"), want) {
		t.Error("a read-only mount does not find what was synced")
	}
	if err := os.WriteFile(r.path(CrashJournal), journal, 0o600); err != nil {
		t.Fatal(err)
	}
	first := r.vol
	log := r.logged()
	r.open(&backing.Store{})
	if !strings.Contains(log.String(), "other mounts are reading it") {
		t.Errorf("no warning: %s", log)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
}

// TestForgedJournal: a journal that is not ours is refused and left alone; from a record that is not ours on, it counts for nothing.
func TestForgedJournal(t *testing.T) {
	other, _ := crashed(t)
	foreign, err := os.ReadFile(other.path(CrashJournal))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) func(b []byte) []byte { return func(b []byte) []byte { b[at] ^= 1; return b } }
	header := journalHeaderSpace // generation 1 stands in slot 1
	for _, c := range []struct {
		name    string
		forge   func(b []byte) []byte
		refused bool
	}{
		{"header", flip(header + 20), true},
		{"header's MAC", flip(header + journalHeaderSize), true},
		{"cut off", func(b []byte) []byte { return b[:100] }, true},
		{"empty", func(b []byte) []byte { return nil }, true},
		{"another volume's", func([]byte) []byte { return foreign }, true},
		{"record", flip(journalRecords + 40), false},
		{"block", flip(journalRecords + recordHeaderSize + 20), false},
		{"behind the records", flip(256<<10 - 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, want := crashed(t)
			r.change(CrashJournal, c.forge)
			err := r.tryOpen(&backing.Store{})
			if c.refused {
				if !errors.Is(err, ErrJournal) || !IsDamage(err) {
					t.Errorf("error %v", err)
				}
				if _, err := os.Stat(r.path(CrashJournal)); err != nil {
					t.Error(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := r.content("f")
			if intact := c.name == "behind the records"; intact != bytes.Equal(got, want) || !intact && !bytes.Equal(got, want[:500]) {
				t.Errorf("%d bytes, or others than the old or new ones", len(got))
			}
		})
	}
}

// journalFaults makes calls on the journal fail.
type journalFaults struct {
	mu  sync.Mutex
	op  backing.Op
	err error
}

func (h *journalFaults) set(op backing.Op, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.op, h.err = op, err
}

func (h *journalFaults) Before(c *backing.Call) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", c.FD))
	if c.Op == h.op && strings.HasPrefix(filepath.Base(name), CrashJournal) {
		return h.err
	}
	return nil
}

// TestJournalFault: a write that cannot be recorded fails, and nothing has happened; as soon as it can be, all is well.
func TestJournalFault(t *testing.T) {
	for _, c := range []struct {
		op  backing.Op
		err error
		new bool // the journal is not there yet
	}{
		{backing.OpWrite, unix.ENOSPC, true}, {backing.OpSync, unix.EIO, true},
		{backing.OpWrite, unix.EIO, false}, {backing.OpSync, unix.EIO, false},
	} {
		t.Run(fmt.Sprintf("%s %v new=%v", c.op, c.err, c.new), func(t *testing.T) {
			r := newFileRig(t)
			want := pattern(1, 2*block+500)
			r.write("f", want)
			faults := &journalFaults{}
			r.reopen(&backing.Store{Hook: faults})
			f := r.load("f", true)
			defer f.Release()
			if !c.new {
				mustWrite(t, f, want[:10], 0)
			}
			faults.set(c.op, c.err)
			for _, do := range []func() error{
				func() error { _, err := f.WriteAt(pattern(2, 100), int64(len(want))); return err },
				func() error { _, err := f.WriteAt(pattern(2, 100), block+3); return err },
				func() error { _, err := f.WriteAt(pattern(2, 30*block), int64(len(want))+9*block); return err },
				func() error { return f.Truncate(block + 7) },
			} {
				if err := do(); !errors.Is(err, c.err) {
					t.Errorf("error %v", err)
				}
				if !bytes.Equal(readAll(t, f), want) {
					t.Fatal("the content has changed")
				}
			}
			if err := f.Sync(true); err == nil && !c.new {
				t.Error("a sync succeeds while nobody knows what the journal holds")
			}
			faults.set("", nil)
			mustSync(t, f)
			mustWrite(t, f, pattern(2, 100), int64(len(want)))
			if !bytes.Equal(readAll(t, f), append(want, pattern(2, 100)...)) {
				t.Error("the next write has not worked")
			}
		})
	}
}

// TestFailedWriteIsNotReplayed: what an application was told to have failed does not come back after a sync.
func TestFailedWriteIsNotReplayed(t *testing.T) {
	for _, off := range []int64{500, 100} { // an append, and an overwrite
		r := newFileRig(t)
		r.write("f", pattern(1, 500))
		d := newDisk()
		store := d.store()
		r.close()
		first := &faults{}
		store.Hook = hooks{first, d}
		r.open(store)
		f := r.load("f", true)
		mustWrite(t, f, []byte("x"), 0)
		mustSync(t, f)
		want := readAll(t, f)
		first.failInPlace(f)
		if _, err := f.WriteAt(pattern(2, 50), off); !errors.Is(err, unix.EIO) {
			t.Fatalf("error %v", err)
		}
		mustSync(t, f)
		d.fail(r, loseAll)
		d.begin(r)
		if !bytes.Equal(r.content("f"), want) {
			t.Errorf("at %d: a write that failed came back", off)
		}
	}
}

// hooks calls several.
type hooks []backing.Hook

func (h hooks) Before(c *backing.Call) error {
	for _, one := range h {
		if err := one.Before(c); err != nil {
			return err
		}
	}
	return nil
}

// failInPlace makes the next write into the file itself fail.
func (f *faults) failInPlace(file *File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.once = func(c *backing.Call) error {
		if c.Op != backing.OpWrite || c.FD != file.FD() {
			return nil
		}
		f.once = nil
		return unix.EIO
	}
}

// TestConcurrentRecords has several writers on files of their own and on one together, with checkpoints and retirements in
// between, and wants all that was synced after a power cut.
func TestConcurrentRecords(t *testing.T) {
	r := newFileRig(t)
	r.journalSize = 160 << 10
	const writers, steps = 6, 40
	for i := range writers {
		r.write(fmt.Sprint("f", i), pattern(1, 100))
	}
	r.write("shared", make([]byte, writers*block))
	d := newDisk()
	d.begin(r)
	shared := r.load("shared", true)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			f := r.load(fmt.Sprint("f", i), true)
			for k := range steps {
				p := pattern(uint64(k), 111)
				if _, err := f.WriteAt(p, f.Size()); err != nil {
					t.Error(err)
				}
				if _, err := shared.WriteAt(p, int64(i)*block+int64(k)); err != nil {
					t.Error(err)
				}
				if k%10 == i {
					if err := shared.ZeroRange(int64(writers+1)*block, block, true); err != nil {
						t.Error(err)
					}
					if err := r.vol.journal.retire(shared); err != nil {
						t.Error(err)
					}
				}
				if err := errors.Join(f.Sync(true), shared.Sync(true)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	d.fail(r, loseAll)
	d.begin(r)
	for i := range writers {
		want := pattern(1, 100)
		for k := range steps {
			want = append(want, pattern(uint64(k), 111)...)
		}
		if !bytes.Equal(r.content(fmt.Sprint("f", i)), want) {
			t.Errorf("file %d has lost something", i)
		}
	}
	got := r.content("shared")
	for i := range int64(writers) {
		want := make([]byte, block)
		for k := range steps {
			copy(want[k:], pattern(uint64(k), 111))
		}
		if !bytes.Equal(got[i*block:(i+1)*block], want) {
			t.Errorf("block %d of the shared file is not as it was written", i)
		}
	}
}

// logged makes the volume's log, from the next time that it is opened, readable.
func (r *fileRig) logged() *bytes.Buffer {
	b := &bytes.Buffer{}
	r.log = slog.New(slog.NewTextHandler(b, nil))
	return b
}

// FuzzJournalRecord: whatever stands in a journal, reading it stays within bounds, and what is accepted is what was written.
func FuzzJournalRecord(f *testing.F) {
	mac := crypto.NewJournalMAC(make([]byte, crypto.DEKSize))
	for _, r := range []record{
		{kind: recordWrite, generation: 1, sequence: 1, first: 3, payload: crypto.CipherBlockSize + 41},
		{kind: recordShrink, generation: 2, sequence: 9, first: 7},
		{kind: recordRetire, generation: 1, sequence: 2},
		{kind: recordHole, generation: 1, sequence: 3, first: 1, hole: 1 << 30},
	} {
		f.Add(r.encode(nil, make([]byte, r.payload), mac))
	}
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := peekRecord(b); err == nil {
			if r.payload > maxRecordPayload || r.size() > recordSpace(maxRecordPayload) || r.first+r.blocks() > maxBlocks+chunkBlocks || r.hole > maxBlocks {
				t.Fatalf("out of bounds: %+v", r)
			}
			// The MAC would keep the fuzzer from what lies behind it.
			if end := recordHeaderSize + r.payload; len(b) >= end {
				b = mac.Append(bytes.Clone(b[:end]), b[:end])
			}
		}
		r, err := decodeRecord(b, mac)
		if err != nil {
			return
		}
		again := r.encode(nil, b[recordHeaderSize:recordHeaderSize+r.payload], mac)
		if back, err := decodeRecord(again, mac); err != nil || back != r {
			t.Errorf("%+v is read back as %+v: %v", r, back, err)
		}
	})
}

// TestFuzzJournalRecordHasSeeds: without them the fuzz target would look at nothing.
func TestFuzzJournalRecordHasSeeds(t *testing.T) {
	files, err := filepath.Glob("testdata/fuzz/FuzzJournalRecord/*")
	if err != nil || len(files) < 3 {
		t.Errorf("%d seeds: %v", len(files), err)
	}
}
