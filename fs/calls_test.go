package fs

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// tally counts the calls below, and slows each of them down where the storage is to be slow.
type tally struct {
	delay time.Duration

	mu      sync.Mutex
	calls   map[backing.Op]int // guarded by mu
	bytes   int64              // written; guarded by mu
	writing int                // under way; guarded by mu
	most    int                // writes under way at once; guarded by mu
}

func (c *tally) Before(call *backing.Call) error {
	if call.Op == backing.OpClose {
		return nil // waits for no storage, and comes when the kernel has forgotten, which is any time
	}
	c.mu.Lock()
	c.calls[call.Op]++
	write := call.Op == backing.OpWrite
	if write {
		c.bytes += call.Size
		c.writing++
		c.most = max(c.most, c.writing)
	}
	c.mu.Unlock()
	time.Sleep(c.delay)
	if write {
		c.mu.Lock()
		c.writing--
		c.mu.Unlock()
	}
	return nil
}

// reset begins to count anew.
func (c *tally) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls, c.bytes, c.most = map[backing.Op]int{}, 0, 0
}

func (c *tally) count(op backing.Op) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[op]
}

// want checks that there were at most so many calls of a kind.
func (c *tally) want(t *testing.T, when string, op backing.Op, most int) {
	t.Helper()
	if got := c.count(op); got > most {
		t.Errorf("%s: %d calls of %s below, want at most %d", when, got, op, most)
	}
}

func newTallyRig(t *testing.T, delay time.Duration, o Options) (*rig, *tally) {
	c := &tally{delay: delay, calls: map[backing.Op]int{}}
	return newRig(t, o, withHook(c), withSealDelay(time.Hour)), c
}

// TestStreamOnSlowStorage writes in small calls to storage that takes 5 ms for each of its own: what reaches it must be few
// and large calls, several of them under way at once, although all go to one file.
func TestStreamOnSlowStorage(t *testing.T) {
	const size, call = 16 << 20, 4 << 10
	r, c := newTallyRig(t, 5*time.Millisecond, Options{})
	f, err := os.Create(r.path("stream"))
	if err != nil {
		t.Fatal(err)
	}
	c.reset()
	block := bytes.Repeat([]byte("x"), call)
	for range size / call {
		if _, err := f.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	c.want(t, "stream", backing.OpWrite, size/(128<<10)+4)
	// None of these for each call; the kernel may write back the times once in a while.
	c.want(t, "stream", backing.OpRead, 64)
	c.want(t, "stream", backing.OpStat, 64)
	c.mu.Lock()
	most := c.most
	c.mu.Unlock()
	if most < 2 {
		t.Error("writes to one file were carried out one after the other")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadAhead: a file that is read from one end to the other takes few and large reads below.
func TestReadAhead(t *testing.T) {
	const size = 8 << 20
	r, c := newTallyRig(t, 0, Options{})
	r.write("f", bytes.Repeat([]byte("x"), size))
	r.remount()
	var st unix.Stat_t
	if err := unix.Stat(r.dir, &st); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(readAheadSetting(unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)))); err != nil || os.Geteuid() != 0 {
		t.Skipf("the kernel's read-ahead cannot be set here: %v", err)
	}
	c.reset()
	if _, err := os.ReadFile(r.path("f")); err != nil {
		t.Fatal(err)
	}
	// It begins with less, and grows.
	c.want(t, "reading all of it", backing.OpRead, size/readAhead+8)
}

// TestCallsForSmallFiles bounds the calls below for what is done to small files, one by one.
func TestCallsForSmallFiles(t *testing.T) {
	r, c := newTallyRig(t, 0, Options{})
	r.write("d0", nil)
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	total := func() (n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, calls := range c.calls {
			n += calls
		}
		return n
	}
	const files = 50
	each := func(what string, most int, work func(name string) error) {
		t.Helper()
		c.reset()
		for i := range files {
			if err := work(r.path(fmt.Sprintf("d/f%d", i))); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "the kernel to release all files", func() bool { return r.server.OpenHandles() == 0 })
		if got := total(); got > most*files+files/2 { // and what belongs to the directory
			t.Errorf("%s: %.1f calls below for each, want at most %d: %v", what, float64(got)/files, most, c.calls)
		}
	}
	missing := func(name string) error {
		if _, err := os.Lstat(name); !os.IsNotExist(err) {
			return fmt.Errorf("%s is there: %v", name, err)
		}
		return nil
	}
	each("stat of a missing name", 1, missing)
	each("stat of a missing name again", 0, missing)
	// look-up, open, stat; header, content, and the time that the kernel wants to be set
	each("create", 9, func(name string) error { return os.WriteFile(name, []byte("hello"), 0o644) })
	r.remount()
	read := func(name string) error { _, err := os.ReadFile(name); return err }
	each("read, cold", 8, read)
	each("stat", 1, func(name string) error { _, err := os.Lstat(name); return err })
	each("stat again", 0, func(name string) error { _, err := os.Lstat(name); return err })
	// stat, a descriptor that keeps it reachable, unlink; the time of the dying file, stat
	each("unlink", 5, os.Remove)
}

// TestSparseFileCostsNothing: opening, looking at and reading a file of 100 GiB takes no more calls than one of 256 MiB.
func TestSparseFileCostsNothing(t *testing.T) {
	r, c := newTallyRig(t, 0, Options{})
	sizes := []int64{256 << 20, 100 << 30}
	for i, size := range sizes {
		r.write(fmt.Sprint(i), []byte("begin"))
		if err := os.Truncate(r.path(fmt.Sprint(i)), size); err != nil {
			t.Fatal(err)
		}
	}
	r.remount()
	var counts [2]map[backing.Op]int
	for i, size := range sizes {
		c.reset()
		f, err := os.Open(r.path(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
			t.Fatal(err)
		}
		if st, err := f.Stat(); err != nil || st.Size() != size {
			t.Errorf("stat: %v, %v", st, err)
		}
		buf := make([]byte, 4096)
		for part := range int64(50) {
			if _, err := f.ReadAt(buf, (size/50*part)&^4095); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the kernel to release all files", func() bool { return r.server.OpenHandles() == 0 })
		c.mu.Lock()
		counts[i] = c.calls
		c.mu.Unlock()
	}
	if small, large := fmt.Sprint(counts[0]), fmt.Sprint(counts[1]); small != large {
		t.Errorf("calls below: %s for 256 MiB, %s for 100 GiB", small, large)
	}
	if counts[1][backing.OpRead] != 51 {
		t.Errorf("%d reads below, want one for each of 50 and one for the header", counts[1][backing.OpRead])
	}
}

// TestSpace: ciphertext is at most 1 KiB + 1 % longer than plaintext.
func TestSpace(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{})
	for _, size := range []int{0, 1, 100, 4095, 4096, 4097, 100_000, 1 << 20, 5<<20 + 1} {
		name := fmt.Sprint(size)
		r.write(name, bytes.Repeat([]byte{1}, size))
		r.seal()
		st, err := os.Stat(r.stored(name))
		if err != nil {
			t.Fatal(err)
		}
		if most := int64(size) + 1024 + int64(size)/100 + 40; size > 0 && st.Size() > most {
			t.Errorf("%d bytes take %d below, want at most %d", size, st.Size(), most)
		} else if size == 0 && st.Size() != 0 {
			t.Errorf("an empty file takes %d bytes below", st.Size())
		}
	}
}

// heap is what is in use of it, in bytes.
func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory() // so that pools are empty, too
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestNothingRetained: what the daemon holds for files is gone once they are. ENVFS_SOAK_FILES is how many are made and removed.
func TestNothingRetained(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{})
	files, err := strconv.Atoi(os.Getenv("ENVFS_SOAK_FILES"))
	if err != nil {
		files = 300
	}
	cycle := func() {
		for i := range 100 {
			name := fmt.Sprint(i)
			r.write(name, []byte("short-lived"))
			r.want(name, []byte("short-lived"))
			if err := os.Remove(r.path(name)); err != nil {
				t.Fatal(err)
			}
		}
		waitFor(t, "the kernel to release and forget all files", func() bool {
			return r.server.OpenHandles() == 0 && r.server.Stats().Inodes == 1
		})
	}
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	cycle()
	r.seal()
	fds, ids, before := descriptors(), len(r.server.table.nodes), heap()
	for range files / 100 {
		cycle()
	}
	r.seal()
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("the heap has grown by %d bytes over %d files", grown, files)
	} else {
		t.Logf("heap: %d bytes before, grown by %d over %d files", before, grown, files)
	}
	if got := descriptors(); got > fds+2 {
		t.Errorf("%d descriptors, %d before", got, fds)
	}
	tb := r.server.table
	if len(tb.nodes) > ids+50 || len(tb.byKey) != 1 || len(tb.aliases) != 0 || len(tb.hidden) != 0 {
		t.Errorf("table: %d node IDs (%d before), %d inodes, %d aliases, %d hidden times",
			len(tb.nodes), ids, len(tb.byKey), len(tb.aliases), len(tb.hidden))
	}
	r.seal()
	if s := r.vol.Stats(); s.Unsealed != 0 {
		t.Errorf("%d files that are gone wait to be sealed", s.Unsealed)
	} else if s.Cache.Keys > 10 { // one that was closed before it was removed stays for its time
		t.Errorf("%d keys of files that are gone are kept", s.Cache.Keys)
	}
}

// TestWithoutXattrs: there are none to be seen, and what is stored of them stays, but for the capabilities of a program that
// is written.
func TestWithoutXattrs(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{})
	r.write("f", []byte("program"))
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for attr, value := range map[string][]byte{"user.kept": []byte("kept"), "security.capability": capability} {
		if err := unix.Setxattr(r.path("f"), attr, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	r.opts.DisableXattr = true
	r.remount()
	buf := make([]byte, 100)
	if _, err := unix.Getxattr(r.path("f"), "user.kept", buf); err != unix.EOPNOTSUPP {
		t.Errorf("getxattr without attributes: %v", err)
	}
	if err := unix.Setxattr(r.path("f"), "user.kept", nil, 0); err != unix.EOPNOTSUPP {
		t.Errorf("setxattr without attributes: %v", err)
	}
	if err := appendTo(r.path("f"), []byte(" of another")); err != nil {
		t.Fatal(err)
	}
	r.opts.DisableXattr = false
	r.remount()
	if n, err := unix.Getxattr(r.path("f"), "user.kept", buf); err != nil || string(buf[:n]) != "kept" {
		t.Errorf("an attribute was lost: %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(r.path("f"), "security.capability", buf); err != unix.ENODATA {
		t.Errorf("a file that was written has kept its capabilities: %v", err)
	}
}

// TestForgottenFileKeepsItsState: a file that waits for its seal when the kernel forgets it is found again with what is known
// of it. A second File would write while the first one seals the size that it knows.
func TestForgottenFileKeepsItsState(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{})
	r.write("f", []byte("first"))
	waitFor(t, "the kernel to release all files", func() bool { return r.server.OpenHandles() == 0 })
	known := func() *inode {
		var st unix.Stat_t
		if err := unix.Stat(r.stored("f"), &st); err != nil {
			t.Fatal(err)
		}
		return r.server.table.find(&st)
	}
	before := known()
	file := before.file.Load()
	r.forgetEntry(rootID, "f")
	waitFor(t, "the kernel to forget the file", func() bool {
		r.server.table.mu.RLock()
		defer r.server.table.mu.RUnlock()
		return before.lookups == 0
	})
	if err := appendTo(r.path("f"), []byte(" second")); err != nil {
		t.Fatal(err)
	}
	if n := known(); n != before || n.file.Load() != file {
		t.Error("the file has got another state")
	}
	r.seal()
	r.want("f", []byte("first second"))
	if err := os.Remove(r.path("f")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the file to be forgotten", func() bool { return r.server.Stats().Inodes == 1 })
}

// TestReadNeedsNoPipe: an answer goes to the kernel in one call. A library that may splice fills a pipe first, in vain.
func TestReadNeedsNoPipe(t *testing.T) {
	r, _ := newTallyRig(t, 0, Options{})
	r.write("f", []byte("content"))
	r.remount()
	pipes := func() (n int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "pipe:") {
				n++
			}
		}
		return n
	}
	before := pipes()
	r.want("f", []byte("content"))
	if after := pipes(); after > before {
		t.Errorf("%d ends of pipes after a read, %d before", after, before)
	}
}
