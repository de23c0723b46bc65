package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// verifyRig is a volume with something of each kind in it.
type verifyRig struct {
	*rewrapRig
	long string // a name that needs a sidecar
}

func newVerifyRig(t testing.TB) *verifyRig {
	t.Helper()
	r := &verifyRig{rewrapRig: newRewrapRig(t), long: strings.Repeat("long", 60)}
	r.file("docs/letter", 5*block+10)
	r.file("docs/one", 1)
	r.file("whole", 4*block)
	r.file(r.long, 2*block)
	r.file(r.long+"d/inside", 100)
	r.create(r.place("docs/empty")).Release()
	if err := os.Link(r.at("docs/letter"), r.path(r.place("letter2"))); err != nil {
		t.Fatal(err)
	}
	target, err := r.vol.EncodeTarget("docs/letter")
	if err == nil {
		err = os.Symlink(target, r.path(r.place("link")))
	}
	if err == nil {
		err = unix.Mkfifo(r.path(r.place("pipe")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.attribute("docs", "user.comment", "of a directory")
	r.attribute("docs/letter", "user.comment", "of a file")
	return r
}

// place returns how a plaintext path is stored, after making what is above it, and sidecars.
func (r *verifyRig) place(plain string) string {
	r.t.Helper()
	rel, dir := "", ""
	for name := range strings.SplitSeq(plain, "/") {
		if rel != "" {
			if err := os.MkdirAll(r.path(rel), 0o700); err != nil {
				r.t.Fatal(err)
			}
		}
		encoded, err := r.vol.EncodeName(name)
		if err != nil {
			r.t.Fatal(err)
		}
		fd, err := unix.Open(r.path(rel), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			err = errors.Join(r.vol.StoreFullName(fd, encoded), unix.Close(fd))
		}
		if err != nil {
			r.t.Fatal(err)
		}
		rel, dir = filepath.Join(rel, encoded.Stored), filepath.Join(dir, name)
		r.names[dir] = rel
	}
	return rel
}

// file makes a sealed file.
func (r *verifyRig) file(plain string, size int64) {
	r.t.Helper()
	r.want[plain] = pattern(uint64(len(r.want)), size)
	r.write(r.place(plain), r.want[plain])
}

func (r *verifyRig) attribute(plain, name, value string) {
	r.t.Helper()
	if err := unix.Lsetxattr(r.at(plain), name, r.vol.SealAttr(name, []byte(value)), 0); err != nil {
		r.t.Fatal(err)
	}
}

// at is the ciphertext path of a plaintext path.
func (r *verifyRig) at(plain string) string {
	r.t.Helper()
	if r.names[plain] == "" {
		r.t.Fatalf("there is no %s", plain)
	}
	return r.path(r.names[plain])
}

// flip changes a byte of a file.
func (r *verifyRig) flip(plain string, offset int) {
	r.change(r.names[plain], func(b []byte) []byte { b[offset] ^= 1; return b })
}

// verify runs one and returns each finding as a line, sorted.
func (r *verifyRig) verify(o VerifyOptions) (VerifyCount, []string) {
	r.t.Helper()
	if o.Paths == nil {
		o.Paths = []string{"."}
	}
	var lines []string
	damage := int64(0)
	o.Found = func(f Finding) {
		line := fmt.Sprintf("%s %s %s", f.Class, f.Kind, strings.ReplaceAll(f.Plaintext, r.long, "LONG"))
		if f.Block != nil {
			line += fmt.Sprintf(" %d+%d", *f.Block, f.Blocks)
		}
		if f.Attribute != "" {
			line += " " + f.Attribute
		}
		if f.Resealed {
			line += " resealed"
		}
		if f.Reason == "" {
			r.t.Errorf("%s: no reason", line)
		}
		if f.Class == ClassDamage {
			damage++
		}
		lines = append(lines, line)
	}
	count, err := r.vol.Verify(r.t.Context(), o)
	if err != nil || !count.Complete {
		r.t.Errorf("%v, %+v", err, count)
	}
	if count.Damage != damage || int(count.Damage+count.Notices+count.Unchecked) != len(lines) {
		r.t.Errorf("the counts do not add up: %+v, %q", count, lines)
	}
	slices.Sort(lines)
	return count, lines
}

func (r *verifyRig) mustFind(o VerifyOptions, want ...string) VerifyCount {
	r.t.Helper()
	slices.Sort(want)
	count, got := r.verify(o)
	if !slices.Equal(got, want) {
		r.t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	return count
}

func TestVerifyClean(t *testing.T) {
	r := newVerifyRig(t)
	before := r.snapshot()
	count := r.mustFind(VerifyOptions{})
	want := VerifyCount{Files: 6, Empty: 1, Directories: 2, Links: 1, Others: 1, Attributes: 2, Complete: true, Bytes: count.Bytes}
	if count != want {
		t.Errorf("%+v, want %+v", count, want)
	}
	for _, plain := range []string{"docs/letter", "docs/one", "whole", r.long, r.long + "d/inside"} {
		want.Bytes -= r.vol.layout.CipherSize(int64(len(r.want[plain])))
	}
	if want.Bytes != 0 {
		t.Errorf("%d bytes more were read than there are", want.Bytes)
	}
	if quick := r.mustFind(VerifyOptions{Quick: true}); quick.Files != 6 || quick.Bytes != 5*1024 {
		t.Errorf("quick: %+v", quick)
	}
	if some := r.mustFind(VerifyOptions{Paths: []string{r.names["docs"], r.names["link"], r.names["whole"]}}); some.Files != 4 || some.Links != 1 {
		t.Errorf("of some paths: %+v", some)
	}
	after := r.snapshot()
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s was changed", path)
		}
	}
}

// TestVerifyFinds damages one thing at a time.
func TestVerifyFinds(t *testing.T) {
	at := func(b, i int) int { return 1024 + b*crypto.CipherBlockSize + i }
	remove := func(r *verifyRig, path string) {
		if err := os.Remove(path); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		change func(r *verifyRig)
		want   []string
		quick  bool // found by a quick run, too
	}{
		{"block", func(r *verifyRig) { r.flip("docs/letter", at(2, 99)) }, []string{"damage block docs/letter 2+1"}, false},
		{"last block", func(r *verifyRig) { r.flip("docs/letter", at(5, 49)) }, []string{"damage block docs/letter 5+1"}, false},
		{"two runs", func(r *verifyRig) {
			r.flip("whole", at(0, 9))
			r.flip("whole", at(1, 9))
			r.flip("whole", at(3, 9))
		}, []string{"damage block whole 0+2", "damage block whole 3+1"}, false},
		{"zeroed block", func(r *verifyRig) {
			r.change(r.names["whole"], func(b []byte) []byte { clear(b[at(1, 0):at(2, 0)]); return b })
		}, []string{"damage block whole 1+1"}, false},
		{"size", func(r *verifyRig) { r.change(r.names["whole"], func(b []byte) []byte { return b[:at(3, 0)] }) },
			[]string{"damage size whole"}, true},
		{"header", func(r *verifyRig) { r.flip("whole", 100); r.flip("whole", 612) }, []string{"damage header whole"}, true},
		{"wrapped key", func(r *verifyRig) {
			r.change(r.names["whole"], func(b []byte) []byte { b[60] ^= 1; b[572] ^= 1; fixChecksums(b); return b })
		}, []string{"damage header whole"}, true},
		{"spare slot torn", func(r *verifyRig) { r.flip("whole", 100) }, []string{"notice slot whole"}, true},
		{"spare slot forged", func(r *verifyRig) {
			r.change(r.names["whole"], func(b []byte) []byte { b[512-60] ^= 1; fixChecksums(b); return b })
		}, []string{"notice slot whole"}, true},
		{"newer version", func(r *verifyRig) {
			r.change(r.names["whole"], func(b []byte) []byte { b[9], b[521] = 2, 2; fixChecksums(b); return b })
		}, []string{"unchecked newer whole"}, true},
		{"name", func(r *verifyRig) {
			stored := []byte(r.at("whole"))
			stored[len(stored)-2] ^= 1
			if err := os.Rename(r.at("whole"), string(stored)); err != nil {
				r.t.Fatal(err)
			}
			r.names["whole"] = filepath.Base(string(stored))
		}, []string{"damage name STORED"}, true},
		{"file under a name that is none", func(r *verifyRig) {
			if err := os.Rename(r.at("whole"), r.path("recovered.1")); err != nil {
				r.t.Fatal(err)
			}
		}, []string{"damage name recovered.1"}, true},
		{"foreign", func(r *verifyRig) {
			writeFile(r.t, r.path("README"), "hello")
			writeFile(r.t, r.path("envfs.unknown"), "hello")
		}, []string{"notice foreign README", "notice foreign envfs.unknown"}, true},
		{"lost sidecar", func(r *verifyRig) { remove(r, r.path(crypto.SidecarName(r.names[r.long]))) },
			[]string{"damage lost-name " + "STORED"}, true},
		{"sidecar of another", func(r *verifyRig) {
			writeFile(r.t, r.path(crypto.SidecarName(r.names[r.long])), readFile(r.t, r.path(crypto.SidecarName(r.names[r.long+"d"]))))
		}, []string{"damage lost-name STORED"}, true},
		{"orphan", func(r *verifyRig) { remove(r, r.at(r.long)) },
			[]string{"notice orphan SIDECAR"}, true},
		{"leftovers", func(r *verifyRig) {
			writeFile(r.t, r.path(rekeyPrefix+strings.Repeat("0", 32)), "")
			writeFile(r.t, r.path(tempName()), "")
		}, []string{"notice leftover TEMP", "notice leftover envfs.tmp." + strings.Repeat("0", 32)}, true},
		{"link", func(r *verifyRig) {
			remove(r, r.at("link"))
			if err := os.Symlink("docs/letter", r.at("link")); err != nil {
				r.t.Fatal(err)
			}
		}, []string{"damage link link"}, true},
		{"attributes", func(r *verifyRig) {
			for _, path := range []string{r.dir, r.at("docs"), r.at("docs/letter")} {
				if err := unix.Setxattr(path, "user.other", r.vol.SealAttr("user.comment", []byte("x")), 0); err != nil {
					r.t.Fatal(err)
				}
			}
		}, []string{"damage attribute . user.other", "damage attribute docs user.other", "damage attribute docs/letter user.other"}, true},
		{"revoked key", func(r *verifyRig) {
			r.fake.FailItem(r.vol.wrappedAt(r.names["whole"]), &keyring.Error{Class: keyring.ErrRevoked})
		}, []string{"unchecked key whole"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newVerifyRig(t)
			// docs/letter has two names; which one is found first is chance. One is taken away here.
			remove(r, r.at("letter2"))
			c.change(r)
			r.reopen(&backing.Store{})
			for i := range c.want {
				c.want[i] = strings.NewReplacer("damage name STORED", "damage name "+r.names["whole"],
					"lost-name STORED", "lost-name "+r.names[r.long], "SIDECAR", crypto.SidecarName(r.names[r.long]),
					"TEMP", r.temp()).Replace(c.want[i])
			}
			r.mustFind(VerifyOptions{}, c.want...)
			if c.quick {
				r.mustFind(VerifyOptions{Quick: true}, c.want...)
			} else {
				r.mustFind(VerifyOptions{Quick: true})
			}
		})
	}
}

// temp is the name of a temporary envfs.json that is there, or "".
func (r *verifyRig) temp() string {
	r.t.Helper()
	found, err := filepath.Glob(r.path(tempPrefix + "*"))
	if err != nil || len(found) == 0 {
		return "none"
	}
	return filepath.Base(found[0])
}

// wrappedAt is the wrapped key in the header of the file with a stored path.
func (v *Volume) wrappedAt(rel string) keyring.Wrapped {
	fd, err := unix.Openat(v.Root(), rel, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	return v.wrappedIn(fd)
}

// TestVerifyJournal: the journal of a mount is none of its business, one without a mount is.
func TestVerifyJournal(t *testing.T) {
	r := newVerifyRig(t)
	writeFile(t, r.path(CrashJournal), "")
	mounted := r.vol // has the lock, as a mount has
	r.vol = r.openUnlocked()
	r.mustFind(VerifyOptions{})
	if err := r.vol.Close(); err != nil {
		t.Error(err)
	}
	r.vol = mounted
	r.close()
	r.vol = r.openUnlocked()
	r.mustFind(VerifyOptions{}, "notice journal envfs.journal")
}

// openUnlocked opens the volume as envfs verify does, beside a mount.
func (r *verifyRig) openUnlocked() *Volume {
	r.t.Helper()
	cfg, err := ReadConfig(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := Open(context.Background(), r.dir, cfg, r.kr, OpenOptions{Arena: secret.NewArena(nil), ReadOnly: true, Unlocked: true})
	if err != nil {
		r.t.Fatal(err)
	}
	return v
}

// meddler changes a file between the moment at which a verification has read its header, and that at which it reads blocks.
type meddler struct {
	change func(n int)
	times  int // how often it does
	mu     sync.Mutex
	n      int // guarded by mu
}

func (m *meddler) Before(c *backing.Call) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Op == backing.OpRead && c.Offset >= 1024 && m.n < m.times {
		m.n++
		m.change(m.n)
	}
	return nil
}

// TestVerifyBesideMount: what a mount changes while it is read is not taken for damage, and is said to be unchecked if it
// never stays the same.
func TestVerifyBesideMount(t *testing.T) {
	for times, want := range map[int][]string{1: nil, 3: nil, 1000: {"unchecked changed whole"}} {
		r := newVerifyRig(t)
		mount := r.vol
		r.vol = r.openUnlocked()
		m := &meddler{times: times}
		m.change = func(n int) {
			verifying := r.vol
			r.vol = mount
			f := r.load(r.names["whole"], true)
			err := errors.Join(f.Truncate(4*block-int64(n%2)*(2*block-5)), f.Sync(false))
			f.Release() // which seals it
			r.vol = verifying
			if err != nil {
				t.Error(err)
			}
		}
		r.vol.store.Hook = m
		r.mustFind(VerifyOptions{Paths: []string{r.names["whole"]}}, want...)
		if m.n == 0 || m.n > verifyLooks {
			t.Errorf("the file was changed %d times", m.n)
		}
		if err := r.vol.Close(); err != nil {
			t.Error(err)
		}
		r.vol = mount
	}
}

// TestVerifyAsksInBatches: a volume at a distance from its key service costs few requests.
func TestVerifyAsksInBatches(t *testing.T) {
	r := newVerifyRig(t)
	r.fill(1000)
	r.close()
	r.vol = r.openUnlocked() // which makes no keys of its own
	r.fake.ResetCounters()
	r.fake.SetDelay(2 * time.Millisecond)
	count := r.mustFind(VerifyOptions{Quick: true})
	// Files of one range of directories arrive together, so requests are not all full, but far from one a file.
	if c := r.fake.Counters(); c.Unwraps > 100 || c.Items != int(count.Files-count.Empty) {
		t.Errorf("%d requests for %d keys of %d files", c.Unwraps, c.Items, count.Files)
	}
}

// TestVerifyStopsWithKeyService: what concerns all files ends the work, and is not said of each.
func TestVerifyStopsWithKeyService(t *testing.T) {
	for class, fault := range map[error]func(r *verifyRig){
		keyring.ErrUnreachable: func(r *verifyRig) { r.fake.Outage() },
		keyring.ErrDenied:      func(r *verifyRig) { r.fake.Deny() },
	} {
		r := newVerifyRig(t)
		r.reopen(&backing.Store{})
		fault(r)
		var found []Finding
		count, err := r.vol.Verify(t.Context(), VerifyOptions{Paths: []string{"."}, Found: func(f Finding) { found = append(found, f) }})
		if !errors.Is(err, class) || count.Complete || len(found) > 0 {
			t.Errorf("%v: %v, %+v, %v", class, err, count, found)
		}
		r.fake.Restore()
	}
}

// failingReads fails with EIO where a bad place of a disk is.
type failingReads struct{ offset int64 }

func (h failingReads) Before(c *backing.Call) error {
	if c.Op == backing.OpRead && c.Offset >= 1024 && c.Offset <= h.offset && h.offset < c.Offset+c.Size {
		return unix.EIO
	}
	return nil
}

// TestVerifyBadDisk: a place of the disk that cannot be read costs the block that is in it.
func TestVerifyBadDisk(t *testing.T) {
	r := newVerifyRig(t)
	if err := os.Remove(r.at("letter2")); err != nil {
		t.Fatal(err)
	}
	r.reopen(&backing.Store{Hook: failingReads{1024 + 4*crypto.CipherBlockSize + 5}})
	r.mustFind(VerifyOptions{}, "damage block docs/letter 4+1")
	r.reopen(&backing.Store{})
}

// TestVerifyLargeFile: more than one chunk, damage at the edges of chunks, and holes.
func TestVerifyLargeFile(t *testing.T) {
	r := newVerifyRig(t)
	r.file("large", 3*chunkBlocks*block+10)
	sparse := r.create(r.place("sparse"))
	for _, at := range []int64{0, 10 * chunkBlocks, 10*chunkBlocks + 1} {
		if _, err := sparse.WriteAt(pattern(1, block), at*block); err != nil {
			t.Fatal(err)
		}
	}
	if err := sparse.Truncate(20 * chunkBlocks * block); err != nil {
		t.Fatal(err)
	}
	sparse.Release()
	r.reopen(&backing.Store{})
	count := r.mustFind(VerifyOptions{})
	if total := int64(20*chunkBlocks) * crypto.CipherBlockSize; count.Bytes > total/2 {
		t.Errorf("%d bytes were read, holes included", count.Bytes)
	}
	for _, b := range []int{chunkBlocks - 1, chunkBlocks, 3 * chunkBlocks} {
		r.flip("large", 1024+b*crypto.CipherBlockSize+30)
	}
	r.flip("sparse", 1024+(10*chunkBlocks+1)*crypto.CipherBlockSize+30)
	r.mustFind(VerifyOptions{}, fmt.Sprintf("damage block large %d+2", chunkBlocks-1),
		fmt.Sprintf("damage block large %d+1", 3*chunkBlocks), fmt.Sprintf("damage block sparse %d+1", 10*chunkBlocks+1))
}

// TestVerifyTorn: what was never synced when the power failed is told apart from damage, and a repair makes holes of it.
func TestVerifyTorn(t *testing.T) {
	r := newVerifyRig(t)
	r.file("log", 2*crypto.BlockSize)
	f := r.load(r.place("log"), true)
	mustWrite(t, f, pattern(1, 6*crypto.BlockSize), 2*crypto.BlockSize)
	r.leave(r.place("log"), r.place("crashed"), 3, 4, 7)
	r.leave(r.place("log"), r.place("damaged"), 0, 3)
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	writeFile(t, r.path(r.place("wiped")), strings.Repeat("\x00", 50_000))
	want := append(r.content(r.place("log"))[:3*crypto.BlockSize], make([]byte, 2*crypto.BlockSize)...)
	want = append(append(want, r.content(r.place("log"))[5*crypto.BlockSize:7*crypto.BlockSize]...), make([]byte, crypto.BlockSize)...)
	notices := []string{"notice hollow wiped", "notice torn crashed 3+2", "notice torn crashed 7+1"}
	damage := []string{"damage block damaged 0+1", "notice torn damaged 3+1"}
	r.mustFind(VerifyOptions{}, append(append(notices, "notice unsealed crashed"), damage...)...)
	o, _ := r.repair()
	r.mustFind(o, append(append(notices, "notice unsealed crashed resealed"), damage...)...)
	r.reopen(&backing.Store{}) // which ends the journal of the repair
	r.mustFind(VerifyOptions{}, "notice hollow wiped")
	if got := r.content(r.place("crashed")); !bytes.Equal(got, want) {
		t.Errorf("repaired: first difference at %d", differs(got, want))
	}
}

// TestBadBlocks: runs join, and there is a bound.
func TestBadBlocks(t *testing.T) {
	b := &badBlocks{}
	for _, block := range []int64{5, 7, 1, 6, 0, 9} {
		b.add(block, "x", false)
	}
	b.add(8, "y", false)
	if got := b.String(); got != "[{0 2 x false} {5 8 x false} {8 9 y false} {9 10 x false}] 0" {
		t.Error(got)
	}
	for i := range int64(2 * maxBadRuns) {
		b.add(100+2*i, "x", false)
	}
	if len(b.runs) != maxBadRuns || b.more != maxBadRuns+4 {
		t.Errorf("%d runs, %d more", len(b.runs), b.more)
	}
	if next := (&badBlocks{}); true {
		next.leaveOut(b)
		if next.none() {
			t.Error("blocks that are not listed are forgotten")
		}
	}
}

// TestVerifyProgress: the total is found while the work goes on, and all of it is done in the end.
func TestVerifyProgress(t *testing.T) {
	r := newVerifyRig(t)
	var last VerifyProgress
	r.mustFind(VerifyOptions{Progress: func(p VerifyProgress) { last = p }})
	if last.Done == 0 || last.Known && last.Done != last.Total {
		t.Errorf("%+v", last)
	}
}

// repairRig is a verifyRig with a quarantine.
func (r *verifyRig) repair() (VerifyOptions, map[string]string) {
	moved := map[string]string{}
	return VerifyOptions{
		Repair: true, Quarantine: filepath.Join(filepath.Dir(r.dir), "quarantine"),
		Moved: func(rel, to string) { moved[rel] = to },
	}, moved
}

// TestVerifyRepairSeals: an unsealed file is sealed, keeps its times, and is sparse only if it has holes.
func TestVerifyRepairSeals(t *testing.T) {
	r := newVerifyRig(t)
	full, holes := r.create(r.place("full")), r.create(r.place("holes"))
	for f, off := range map[*File]int64{full: 0, holes: 50 * block} {
		if _, err := f.WriteAt(pattern(4, 2*block), off); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(false); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash leaves: the unsealed files, one of them with part of a block behind its end.
	r.names["crashed"], r.names["crashed-holes"] = r.place("crashed"), r.place("crashed-holes")
	writeFile(t, r.at("crashed"), readFile(t, r.at("full"))+"part of a block")
	writeFile(t, r.at("crashed-holes"), readFile(t, r.at("holes")))
	full.Release()
	holes.Release()
	old := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
	for _, name := range []string{"crashed", "crashed-holes"} {
		if err := os.Chtimes(r.at(name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	r.reopen(&backing.Store{})
	r.mustFind(VerifyOptions{}, "notice unsealed crashed", "notice unsealed crashed-holes")
	if r.vol.tryRepairQuick(t) == nil {
		t.Error("a quick repair is not refused")
	}
	o, moved := r.repair()
	count := r.mustFind(o, "notice unsealed crashed resealed", "notice unsealed crashed-holes resealed")
	if count.Resealed != 2 || count.Quarantined != 0 || len(moved) != 0 {
		t.Errorf("%+v, %v", count, moved)
	}
	r.reopen(&backing.Store{})
	r.mustFind(VerifyOptions{})
	for name, sparse := range map[string]bool{"crashed": false, "crashed-holes": true} {
		h := onDisk(t, r.at(name))
		if h.Flags&crypto.FlagSealed == 0 || sparse != (h.Flags&crypto.FlagSparse != 0) {
			t.Errorf("%s: flags %d", name, h.Flags)
		}
		if st, err := os.Stat(r.at(name)); err != nil || !st.ModTime().Equal(old) {
			t.Errorf("%s: modified at %v, %v", name, st.ModTime(), err)
		}
	}
	if _, err := os.Stat(o.Quarantine); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty quarantine was made: %v", err)
	}
	f := r.load(r.names["crashed"], false)
	if !bytes.Equal(readAll(t, f), pattern(4, 2*block)) {
		t.Error("the content differs")
	}
	f.Release()
}

// tryRepairQuick asks for a repair that would seal what it has not read.
func (v *Volume) tryRepairQuick(t *testing.T) error {
	_, err := v.Verify(t.Context(), VerifyOptions{Paths: []string{"."}, Quick: true, Repair: true, Quarantine: t.TempDir()})
	return err
}

// TestVerifyRepairMoves: what cannot be read goes to the quarantine, byte for byte, and the rest stays as it is.
func TestVerifyRepairMoves(t *testing.T) {
	r := newVerifyRig(t)
	r.file("lost/a", 10)
	r.flip("docs/letter", 1024+30) // under two names
	r.flip(r.long, 1024+30)        // with a sidecar
	r.flip("lost/a", 1024+30)      // in a directory that is moved anyway
	if err := os.Rename(r.at("lost"), r.at("lost")[:len(r.at("lost"))-1]+"_"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.at("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", r.at("link")); err != nil {
		t.Fatal(err)
	}
	r.reopen(&backing.Store{})
	before := r.snapshot()
	o, moved := r.repair()
	count, found := r.verify(o)
	if count.Damage != 5 || count.Quarantined != 5 || count.Unchecked != 0 {
		t.Errorf("%+v\n%s", count, strings.Join(found, "\n"))
	}
	want := []string{r.names["docs/letter"], r.names["letter2"], r.names[r.long], r.names["link"], filepath.Base(r.at("lost")[:len(r.at("lost"))-1] + "_")}
	slices.Sort(want)
	var got []string
	for rel, to := range moved {
		got = append(got, rel)
		if to != filepath.Join(o.Quarantine, rel) {
			t.Errorf("%s was moved to %s", rel, to)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("moved %q, want %q", got, want)
	}
	r.compareMoved(before, o.Quarantine, append(want, crypto.SidecarName(r.names[r.long])))
	r.mustFind(VerifyOptions{})

	// What has the name of something in quarantine stays.
	writeFile(t, r.at("docs/letter"), "damaged again")
	r.mustFind(o, "damage header docs/letter", "unchecked repair docs/letter")
	if readFile(t, r.at("docs/letter")) != "damaged again" {
		t.Error("an entry that could not be moved was changed")
	}
}

// compareMoved checks that everything is where it was and as it was, but for what was moved, which is in the quarantine.
func (r *verifyRig) compareMoved(before map[string]string, quarantine string, moved []string) {
	r.t.Helper()
	dir, after := r.dir, r.snapshot()
	r.dir = quarantine
	there := r.snapshot()
	r.dir = dir
	for path, was := range before {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			r.t.Fatal(err)
		}
		in := after[path]
		if slices.ContainsFunc(moved, func(m string) bool { return rel == m || strings.HasPrefix(rel, m+"/") }) {
			if in = there[filepath.Join(quarantine, rel)]; after[path] != "" {
				r.t.Errorf("%s is still there", rel)
			}
		}
		if st, err := os.Lstat(filepath.Join(quarantine, rel)); err == nil && st.IsDir() || rel == "." {
			continue // times of directories in which something was moved have changed
		}
		if in != was && !isDir(path) {
			r.t.Errorf("%s was changed", rel)
		}
	}
}

func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

// TestVerifyRepairKilled kills a repair at each call that changes something: every file is where it was or in the quarantine,
// with the same bytes but for a seal, and the next repair does the rest.
func TestVerifyRepairKilled(t *testing.T) {
	for at := 1; ; at++ {
		r := newVerifyRig(t)
		f := r.create(r.place("open"))
		if _, err := f.WriteAt(pattern(8, 2*block), 0); err != nil {
			t.Fatal(err)
		}
		r.want["crashed"] = pattern(8, 2*block)
		unsealed := readFile(t, r.at("open"))
		f.Release()
		writeFile(t, r.path(r.place("crashed")), unsealed+"tail")
		r.flip("docs/letter", 1024+30)
		r.flip(r.long, 1024+30)
		bad := map[string]string{}
		for _, plain := range []string{"docs/letter", "letter2", r.long} {
			bad[plain] = readFile(t, r.at(plain))
		}
		hook := &lethal{at: 1 << 30}
		r.reopen(&backing.Store{Hook: hook})
		hook.mu.Lock()
		hook.n, hook.at, hook.tear = 0, at, 100
		hook.mu.Unlock()
		o, _ := r.repair()
		o.Paths = []string{"."}
		_, err := r.vol.Verify(t.Context(), o)
		hook.mu.Lock()
		killed := hook.n >= at
		hook.at = 1 << 30
		hook.mu.Unlock()
		for round := range 2 {
			for plain, want := range bad {
				here, herr := os.ReadFile(r.at(plain))
				there, terr := os.ReadFile(filepath.Join(o.Quarantine, r.names[plain]))
				if (herr == nil) == (terr == nil) || string(here)+string(there) != want {
					t.Errorf("killed at call %d (%v), round %d: %s: here %v, there %v", at, err, round, plain, herr, terr)
				}
				if round == 1 && terr != nil {
					t.Errorf("killed at call %d: %s was not moved by the next repair", at, plain)
				}
			}
			if g := r.load(r.names["crashed"], false); !bytes.Equal(readAll(t, g), r.want["crashed"]) {
				t.Errorf("killed at call %d, round %d: the unsealed file differs", at, round)
			} else {
				g.Release()
			}
			if round == 0 {
				r.reopen(&backing.Store{})
				r.verify(o)
			}
		}
		if sidecar := crypto.SidecarName(r.names[r.long]); !isThere(filepath.Join(o.Quarantine, sidecar)) || isThere(r.path(sidecar)) {
			t.Errorf("killed at call %d: the full name of what was moved has not gone along", at)
		}
		r.mustFind(VerifyOptions{})
		r.close()
		if !killed {
			if at < 10 {
				t.Errorf("a repair that seals and moves makes %d calls that change something", at)
			}
			return
		}
	}
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestVerifyRepairOrphans: a sidecar whose entry is gone goes to the quarantine. Those in the root would stay for ever: nobody
// removes or replaces that directory, which is when those in others are swept away. A descriptor that is not closed well
// makes no failure of a move.
func TestVerifyRepairOrphans(t *testing.T) {
	r := newVerifyRig(t)
	inDocs := "docs/" + strings.Repeat("name", 60)
	r.file(inDocs, 10)
	var sidecars []string
	for _, plain := range []string{r.long, inDocs} {
		dir, name := filepath.Split(r.names[plain])
		sidecars = append(sidecars, filepath.Join(dir, crypto.SidecarName(name)))
		if err := os.Remove(r.at(plain)); err != nil {
			t.Fatal(err)
		}
	}
	orphans := []string{"notice orphan " + sidecars[0], "notice orphan docs/" + filepath.Base(sidecars[1])}
	slices.Sort(orphans)
	var moving atomic.Bool
	r.reopen(&backing.Store{Hook: hookFunc(func(c *backing.Call) error {
		switch {
		case c.Op == backing.OpRename:
			moving.Store(true)
		case c.Op == backing.OpOpen:
			moving.Store(false)
		case c.Op == backing.OpClose && moving.Load():
			return unix.EIO
		}
		return nil
	})})
	r.mustFind(VerifyOptions{}, orphans...)
	before := r.snapshot()
	o, moved := r.repair()
	count := r.mustFind(o, orphans...)
	if count.Quarantined != 2 || len(moved) != 2 {
		t.Errorf("%+v, %v", count, moved)
	}
	r.compareMoved(before, o.Quarantine, sidecars)
	r.mustFind(VerifyOptions{})
}

// TestVerifyRepairRefuses a volume that is not its own, and a quarantine that cannot be one.
func TestVerifyRepairRefuses(t *testing.T) {
	r := newVerifyRig(t)
	o, _ := r.repair()
	o.Paths = []string{"."}
	writeFile(t, filepath.Join(filepath.Dir(r.dir), "file"), "")
	if err := os.Symlink(r.at("docs"), filepath.Join(filepath.Dir(r.dir), "sneaky")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{r.path("quarantine"), r.dir, "/proc/quarantine", filepath.Join(filepath.Dir(r.dir), "file/x"),
		filepath.Join(filepath.Dir(r.dir), "sneaky/x")} {
		o.Quarantine = bad
		if _, err := r.vol.Verify(t.Context(), o); !errors.Is(err, ErrBadQuarantine) && !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	v := r.openUnlocked()
	if _, err := v.Verify(t.Context(), o); !errors.Is(err, ErrNotAlone) {
		t.Errorf("without the lock: %v", err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}
