package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// soaking reports whether the tests are to take their long form.
func soaking() bool { return os.Getenv("ENVFS_SOAK") != "" }

// strike is a fault: what happens to one call.
type strike struct {
	name  string
	err   error // the call fails
	short int64 // or a read or write moves this many bytes at first; negative: all but so many
}

func strikes() []strike {
	return []strike{
		{"ENOSPC", unix.ENOSPC, 0}, {"EDQUOT", unix.EDQUOT, 0}, {"EIO", unix.EIO, 0}, {"EROFS", unix.EROFS, 0},
		{"ESTALE", unix.ESTALE, 0}, {"1 byte", nil, 1}, {"a page", nil, 4096}, {"two pages", nil, 8192}, {"a byte less", nil, -1},
	}
}

// sweep counts calls and strikes at one of them.
type sweep struct {
	strike strike
	at     int // which call, from 1 on; 0: none

	mu    sync.Mutex
	on    bool          // guarded by mu
	calls int           // while on; guarded by mu
	close bool          // one of them closed something; guarded by mu
	hit   *backing.Call // what was struck; guarded by mu
}

func (s *sweep) Before(c *backing.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return nil
	}
	s.calls++
	s.close = s.close || c.Op == backing.OpClose
	if s.calls != s.at {
		return nil
	}
	if s.strike.err == nil {
		short := s.strike.short
		if short < 0 {
			short += c.Size
		}
		if c.Op != backing.OpRead && c.Op != backing.OpWrite || short <= 0 || short >= c.Size {
			return nil // there is no such call
		}
		s.note(c)
		c.Size = short
		return nil
	}
	s.note(c)
	return s.strike.err
}

// note remembers what was struck, with the name of the file. The caller holds mu.
func (s *sweep) note(c *backing.Call) {
	s.hit = &backing.Call{Op: c.Op, Offset: c.Offset, Size: c.Size, Name: nameBehind(c.FD)}
}

// struck returns what was struck, or nil, and whether it was now or earlier.
func (s *sweep) struck() *backing.Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hit
}

func (s *sweep) turn(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
}

func (s *sweep) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// fileChange is one call on a file and what it makes of the content.
type fileChange struct {
	name string
	call func(f *File) error
	want func(old []byte) []byte
}

func writeOf(seed uint64, n, off int64) fileChange {
	p := pattern(seed, n)
	return fileChange{
		name: fmt.Sprintf("write %d at %d", n, off),
		call: func(f *File) error { _, err := f.WriteAt(p, off); return err },
		want: func(old []byte) []byte {
			b := ofSize(old, max(off+n, int64(len(old))))
			copy(b[off:], p)
			return b
		},
	}
}

// ofSize returns a copy of b with n bytes.
func ofSize(b []byte, n int64) []byte {
	out := make([]byte, n)
	copy(out, b)
	return out
}

func truncateTo(n int64) fileChange {
	return fileChange{
		name: fmt.Sprintf("truncate to %d", n),
		call: func(f *File) error { return f.Truncate(n) },
		want: func(old []byte) []byte { return ofSize(old, n) },
	}
}

func zeroOf(off, n int64, keep bool) fileChange {
	return fileChange{
		name: fmt.Sprintf("zero %d at %d, keep %t", n, off, keep),
		call: func(f *File) error { return f.ZeroRange(off, n, keep) },
		want: func(old []byte) []byte {
			size := int64(len(old))
			if !keep {
				size = max(size, off+n)
			}
			b := ofSize(old, size)
			clear(b[min(off, size):min(off+n, size)])
			return b
		},
	}
}

func allocateOf(off, n int64) fileChange {
	return fileChange{
		name: fmt.Sprintf("allocate %d at %d", n, off),
		call: func(f *File) error { return f.Allocate(off, n, false) },
		want: func(old []byte) []byte { return ofSize(old, max(int64(len(old)), off+n)) },
	}
}

func syncOf() fileChange {
	return fileChange{"sync", func(f *File) error { return f.Sync(false) }, bytes.Clone}
}

// changes are what a sweep strikes. Those of one group are made while the file is open once.
func changes() [][]fileChange {
	return [][]fileChange{
		{
			writeOf(2, 50, 3*block+100), writeOf(3, 2*block, block+10), writeOf(4, 30, 5*block+155), syncOf(),
			zeroOf(block-5, 2*block+14, true), writeOf(5, 100, 2*block+50), zeroOf(5*block, block+7, false), truncateTo(4*block + 9),
		},
		{
			allocateOf(4*block, 3*block+1), truncateTo(5*block - 1), truncateTo(9*block + 3), writeOf(6, 2*block+1, 7*block+2000),
			zeroOf(0, 20*block, true), writeOf(7, block, 3*block), syncOf(), truncateTo(block),
		},
		{truncateTo(0), writeOf(8, 2*block+2048, 0), truncateTo(2 * block), writeOf(9, 1, 2*block)},
		{truncateTo(0), allocateOf(100, 2*block), writeOf(10, 3*block, 0)},
		{truncateTo(0), zeroOf(block, block, false), syncOf(), writeOf(11, 3*block, 100)},
	}
}

// TestEveryCallStruck makes each call that a series of changes makes below fail in each way, one at a time. The change under
// way must report it, the file must hold what it held or what it was to hold, block by block, and everything after that must
// work as if nothing had happened.
func TestEveryCallStruck(t *testing.T) {
	r := newFileRig(t)
	r.journalSize = 2 * journalLeast // made in each run, so a small one; where there is no room, a smaller one
	none := &sweep{}
	if failure := r.strikeOnce("calm", none); failure != "" {
		t.Fatal(failure)
	}
	total, struck, seen := none.count(), 0, map[string]bool{}
	if !none.close {
		t.Error("the changes close nothing")
	}
	for at := 1; at <= total; at++ {
		for i, st := range strikes() {
			if !soaking() && (at+i)%8 != 0 {
				continue
			}
			s := &sweep{strike: st, at: at}
			failure := r.strikeOnce(fmt.Sprintf("f-%d-%d", at, i), s)
			hit := s.struck()
			if hit == nil {
				continue
			}
			struck++
			if kind := failure[strings.IndexByte(failure, ':')+1:]; failure != "" && !seen[kind] {
				seen[kind] = true
				t.Errorf("call %d of %d (%s %d at %d), %s: %s", at, total, hit.Op, hit.Size, hit.Offset, st.name, failure)
			}
		}
	}
	t.Logf("%d calls, %d faults", total, struck)
	if struck < total/3 {
		t.Errorf("only %d faults for %d calls", struck, total)
	}
}

// strikeOnce makes the changes to a new file with a fault in one call. It returns what is wrong, or "".
func (r *fileRig) strikeOnce(name string, s *sweep) (failure string) {
	content := pattern(1, 3*block+100)
	r.reopen(&backing.Store{})
	r.write(name, content)
	r.reopen(&backing.Store{Hook: s})
	s.turn(true)
	for i, group := range changes() {
		before := s.struck() != nil
		f, err := r.loadStruck(name, s)
		if err != nil {
			return fmt.Sprintf("open %d: %v", i, err)
		}
		for _, c := range group {
			if content, failure = r.strikeChange(f, c, content, s); failure != "" {
				s.turn(false)
				f.Release()
				return fmt.Sprintf("%s: %s", c.name, failure)
			}
		}
		f.Release()
		if err := r.vol.SealAll(); err != nil && (before || s.struck() == nil) {
			return fmt.Sprintf("seal: %v", err)
		}
	}
	s.turn(false)
	r.reopen(&backing.Store{})
	f, err := r.tryLoad(name, false)
	if err != nil {
		return fmt.Sprintf("open at the end: %v", err)
	}
	defer f.Release()
	got, err := contentOf(f)
	if err != nil || !bytes.Equal(got, content) {
		return fmt.Sprintf("at the end: %d bytes, want %d, first difference at %d, %v", len(got), len(content), differs(got, content), err)
	}
	if err := os.Remove(r.path(name)); err != nil {
		return err.Error()
	}
	return ""
}

// loadStruck opens the file, once more if the fault hits that.
func (r *fileRig) loadStruck(name string, s *sweep) (*File, error) {
	before := s.struck() != nil
	fd, err := unix.Open(r.path(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
		f, err := r.vol.OpenFile(r.t.Context(), fd, st.Size, true, &fileLog{})
		if err == nil {
			return f, nil
		}
		if before || s.struck() == nil || s.strike.err != nil && !errors.Is(err, s.strike.err) {
			return nil, errors.Join(err, unix.Close(fd))
		}
		before = true
	}
}

// strikeChange makes one change and returns what the file holds then.
func (r *fileRig) strikeChange(f *File, c fileChange, old []byte, s *sweep) (content []byte, failure string) {
	before := s.struck() != nil
	want := c.want(old)
	err := c.call(f)
	now := s.struck() != nil && !before
	s.turn(false)
	got, rerr := contentOf(f)
	s.turn(true)
	switch {
	case rerr != nil:
		return nil, fmt.Sprintf("then reading: %v (the call said %v)", rerr, err)
	case err == nil && !bytes.Equal(got, want):
		return nil, fmt.Sprintf("no error, and %d bytes, want %d, first difference at %d", len(got), len(want), differs(got, want))
	case err == nil && now && mustReport(s):
		return nil, "no error"
	case err != nil && !now:
		return nil, fmt.Sprintf("an error of its own: %v", err)
	case err != nil && s.strike.err != nil && !errors.Is(err, s.strike.err):
		return nil, fmt.Sprintf("another error: %v", err)
	case err != nil && !oldOrNew(got, old, want):
		return nil, fmt.Sprintf("%d bytes (of %d, to become %d) that are neither the old ones nor the new", len(got), len(old), len(want))
	}
	return got, ""
}

// mustReport says whether whoever changes the file must hear of the fault: a read that was short at first goes on, and a journal
// for which there is no room is made smaller.
func mustReport(s *sweep) bool {
	switch hit := s.struck(); {
	case hit.Op == backing.OpWrite && hit.Name == journalTemp && (s.strike.err == nil || isFull(s.strike.err)):
		return false
	case hit.Op == backing.OpClose: // what was written through it was synced before
		return false
	case hit.Op == backing.OpUnlink && backing.IsNotExist(s.strike.err): // what is gone need not be removed
		return false
	}
	return s.struck().Op != backing.OpRead && (s.strike.err != nil || s.struck().Op == backing.OpWrite)
}

// contentOf is readAll for a file that may not be readable.
func contentOf(f *File) ([]byte, error) {
	buf := make([]byte, f.Size()+1)
	n, err := f.ReadAt(buf, 0)
	return buf[:n], err
}

// oldOrNew reports whether a file that a failed call left is as long as before or as it was to become, and each of its blocks
// is the old one or the new one.
func oldOrNew(got, old, want []byte) bool {
	if len(got) != len(old) && len(got) != len(want) {
		return false
	}
	for at := 0; at < len(got); at += crypto.BlockSize {
		end := min(at+crypto.BlockSize, len(got))
		if !bytes.Equal(got[at:end], part(old, at, end)) && !bytes.Equal(got[at:end], part(want, at, end)) {
			return false
		}
	}
	return true
}

// part returns b[from:to], with zeros for what b does not have.
func part(b []byte, from, to int) []byte {
	return ofSize(b[min(from, len(b)):min(to, len(b))], int64(to-from))
}

func differs(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
