package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/keyringtest"
	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// Offsets in a journal; see doc/format.md, 10.
const (
	firstHeader   = 4096 // of generation 1, the only one that was written
	firstRecord   = 8192
	recordFields  = 80
	recordLength  = 4608 // with one block
	recordPadding = recordFields + crypto.CipherBlockSize + crypto.JournalMACSize

	recordOfB      = firstRecord
	recordOfTorn   = firstRecord + recordLength
	recordOfOld    = firstRecord + 2*recordLength
	behindRecords  = firstRecord + 3*recordLength
	tornBlock      = 1
	oldBlock       = 4
	replayedBlock  = 2 // has a record in the journal of an earlier mount
	mostForJournal = 64 << 20
)

// journalAttack is a row about the journal. All ways to do it have the same outcome.
type journalAttack struct {
	name string
	ways []func(c *crashed)
}

// crashed is a volume of which the power was cut while two files were open: d/a, of which what was synced of one block is torn in
// place and of another one not there yet, and d/b, of which all is in place. Each attack finds it as it was, down to the inode
// numbers: what was kept are other names of the same files.
type crashed struct {
	t    *testing.T
	r    *rig
	keep string
	now  map[string][]byte // plaintext as it was synced, by name in d
	then map[string][]byte // plaintext of the older version

	dir     string            // ciphertext path of d
	names   map[string]string // stored names in it
	image   map[string][]byte // ciphertext after the power cut, and "journal"
	clean   map[string][]byte // ciphertext after a clean end
	earlier []byte            // the journal of an earlier mount, which came to its end: its blocks were replaced since
	foreign [][]byte          // journals of other volumes
}

func (c *crashed) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashed) journal() string { return filepath.Join(c.r.cipher, volume.CrashJournal) }

func (c *crashed) path(name string) string { return filepath.Join(c.dir, c.names[name]) }

func (c *crashed) kept(name string) string { return filepath.Join(c.keep, name) }

func (c *crashed) read(path string) []byte {
	c.t.Helper()
	b, err := os.ReadFile(path)
	c.must(err)
	return b
}

// edit changes the journal in place.
func (c *crashed) edit(change func(b []byte) []byte) {
	c.t.Helper()
	c.must(os.WriteFile(c.journal(), change(c.read(c.journal())), 0o600))
}

// writeSynced writes to a file that stays open, and syncs it.
func (c *crashed) writeSynced(f *os.File, name string, data []byte, off int) {
	c.t.Helper()
	_, err := f.WriteAt(data, int64(off))
	c.must(err)
	c.must(f.Sync())
	copy(c.now[name][off:], data)
}

func (c *crashed) open(name string) *os.File {
	c.t.Helper()
	f, err := os.OpenFile(c.r.path("d/"+name), os.O_RDWR, 0)
	c.must(err)
	return f
}

// newCrashed makes the volume.
func newCrashed(t *testing.T) *crashed {
	t.Helper()
	c := &crashed{t: t, r: newRig(t, Options{WriteThrough: true}), names: map[string]string{}, image: map[string][]byte{}, clean: map[string][]byte{}}
	c.keep = filepath.Join(filepath.Dir(c.r.cipher), "kept")
	c.now = map[string][]byte{"a": pattern(1, tamperedSize), "b": pattern(2, tamperedSize)}
	c.must(errors.Join(os.Mkdir(c.keep, 0o755), os.Mkdir(c.r.path("d"), 0o755)))
	c.dir = c.r.stored("d")
	for name, content := range c.now {
		c.r.write("d/"+name, content)
		c.names[name] = filepath.Base(c.r.stored("d/" + name))
	}
	c.r.remount() // which seals
	a := c.open("a")
	for i := range 4 {
		c.writeSynced(a, "a", pattern(uint64(10+i), 100), replayedBlock*block+i)
	}
	c.earlier = c.read(c.journal())
	c.must(os.Link(c.journal(), c.kept("earlier")))
	c.must(a.Close())
	c.r.remount()
	c.then = map[string][]byte{"a": bytes.Clone(c.now["a"]), "b": bytes.Clone(c.now["b"])}
	a = c.open("a")
	c.writeSynced(a, "a", pattern(20, 200), replayedBlock*block)
	c.must(a.Close())
	c.r.remount()
	c.crash()
	for _, kr := range []*keyringtest.Fake{c.r.kr, keyringtest.NewFake(secret.NewArena(nil))} {
		c.foreign = append(c.foreign, journalOfAnother(t, kr))
	}
	return c
}

// crash makes the images. What is in place after a power cut is chosen: a record was durable before.
func (c *crashed) crash() {
	c.t.Helper()
	before := c.read(c.path("a"))
	a, b := c.open("a"), c.open("b")
	c.writeSynced(b, "b", pattern(30, 100), tornBlock*block+5)
	c.writeSynced(a, "a", pattern(31, 100), tornBlock*block+5)
	c.writeSynced(a, "a", pattern(32, 100), oldBlock*block+5)
	for name := range c.now {
		c.image[name] = c.read(c.path(name))
		c.must(os.Link(c.path(name), c.kept(name)))
	}
	copy(c.image["a"][at(tornBlock, 2000):at(tornBlock+1, 0)], before[at(tornBlock, 2000):])
	copy(c.image["a"][at(oldBlock, 0):at(oldBlock+1, 0)], before[at(oldBlock, 0):])
	c.image["journal"] = c.read(c.journal())
	c.must(os.Link(c.journal(), c.kept("journal")))
	for _, at := range []int{recordOfB, recordOfTorn, recordOfOld} {
		if string(c.image["journal"][at:at+8]) != "ENVFSJR1" || string(c.earlier[at:at+8]) != "ENVFSJR1" {
			c.t.Fatalf("there is no record at %d", at)
		}
	}
	c.must(errors.Join(a.Close(), b.Close()))
	c.r.unmount()
	for name := range c.now {
		c.clean[name] = c.read(c.path(name))
	}
}

func journalOfAnother(t *testing.T, kr *keyringtest.Fake) []byte {
	t.Helper()
	c := &crashed{t: t, r: newRig(t, Options{WriteThrough: true}, func(r *rig) { r.kr = kr }), now: map[string][]byte{"a": make([]byte, 2*block)}}
	c.must(os.Mkdir(c.r.path("d"), 0o755))
	c.r.write("d/a", c.now["a"])
	c.r.remount()
	a := c.open("a")
	c.writeSynced(a, "a", pattern(1, 100), 5)
	b := c.read(c.journal())
	c.must(a.Close())
	c.r.unmount()
	return b
}

// restore makes the volume what it was after the power cut.
func (c *crashed) restore() {
	c.t.Helper()
	c.must(errors.Join(os.RemoveAll(c.dir), os.RemoveAll(c.journal()), os.Mkdir(c.dir, 0o755)))
	for name, path := range map[string]string{"a": c.path("a"), "b": c.path("b"), "journal": c.journal()} {
		c.must(os.WriteFile(c.kept(name), c.image[name], 0o600))
		c.must(os.Link(c.kept(name), path))
	}
	c.must(os.WriteFile(c.kept("earlier"), c.earlier, 0o600))
}

func (c *crashed) flipped(at int) { c.edit(func(b []byte) []byte { b[at] ^= 1; return b }) }

// flipsIn are ways to change one bit of the journal.
func flipsIn(offsets ...int) (ways []func(c *crashed)) {
	for _, at := range offsets {
		ways = append(ways, func(c *crashed) { c.flipped(at) })
	}
	return ways
}

// recordFlips are ways to change one bit of a record: of each of its fields, of its block and of its MAC.
func recordFlips(record int) []func(c *crashed) {
	ways := flipsIn()
	for _, field := range []int{3, 9, 11, 15, 23, 31, 40, 55, 63, 71, 79, recordFields, recordFields + 2000, recordPadding - 33, recordPadding - 1} {
		ways = append(ways, flipsIn(record+field)...)
	}
	return ways
}

// journalEdits are ways to change the journal as a whole.
func journalEdits(changes ...func(b []byte) []byte) (ways []func(c *crashed)) {
	for _, change := range changes {
		ways = append(ways, func(c *crashed) { c.edit(change) })
	}
	return ways
}

func cutAt(offsets ...int) (ways []func(c *crashed)) {
	for _, n := range offsets {
		ways = append(ways, journalEdits(func(b []byte) []byte { return b[:n] })...)
	}
	return ways
}

func journalAttacks() []journalAttack {
	return slices.Concat(journalHeaderAttacks(), recordAttacks(), journalReplays(), journalPlaces())
}

func journalHeaderAttacks() []journalAttack {
	return []journalAttack{
		{"a bit of any field of the journal's header flipped, or of its MAC", flipsIn(firstHeader+3, firstHeader+9, firstHeader+12,
			firstHeader+23, firstHeader+30, firstHeader+47, firstHeader+55, firstHeader+60, firstHeader+recordFields, firstHeader+recordFields+31)},
		{"the journal emptied, zeroed, or cut inside of its header", append(cutAt(0, 100, firstHeader, firstHeader+100),
			journalEdits(func(b []byte) []byte { clear(b); return b })...)},
		{"the journal changed where nothing counts: the other header, and behind headers and records", append(
			flipsIn(firstHeader+200, recordOfB+recordPadding, behindRecords, behindRecords+5000),
			journalEdits(
				func(b []byte) []byte { copy(b, pattern(1, 4096)); return b },
				func(b []byte) []byte { copy(b[:4096], b[firstHeader:]); return b },
			)...)},
		{"the journal made 1 TiB long", []func(c *crashed){func(c *crashed) { c.must(os.Truncate(c.journal(), 1<<40)) }}},
	}
}

func recordAttacks() []journalAttack {
	number := func(at int, n uint64, size int) func(b []byte) []byte {
		return func(b []byte) []byte {
			var all [8]byte
			binary.BigEndian.PutUint64(all[:], n)
			copy(b[at:at+size], all[8-size:])
			return b
		}
	}
	copyRecord := func(b []byte, to, from int) { copy(b[to:to+recordLength], b[from:from+recordLength]) }
	return []journalAttack{
		{"a bit of any field of a record in the journal flipped, of its block or of its MAC: that of block 4", recordFlips(recordOfOld)},
		{"the same: that of block 1, which is in front of it", recordFlips(recordOfTorn)},
		{"a record that claims to be as long as can be, or a hole of as many blocks: that of block 4", journalEdits(
			number(recordOfOld+12, 1<<32-1, 4), number(recordOfOld+12, 258*crypto.CipherBlockSize, 4), number(recordOfOld+12, 258*crypto.CipherBlockSize+1, 4),
			number(recordOfOld+72, 1<<64-1, 8), number(recordOfOld+56, 1<<64-1, 8))},
		{"the journal cut in the record of block 4, or in front of it", cutAt(recordOfOld, recordOfOld+40, recordOfOld+2000, recordOfOld+recordPadding-1)},
		{"the journal cut in the record of block 1, or in front of it", cutAt(recordOfTorn, recordOfTorn+40, recordOfTorn+recordPadding-1, firstRecord)},
		{"two records swapped, or one taken out", journalEdits(
			func(b []byte) []byte {
				one := bytes.Clone(b[recordOfTorn:recordOfOld])
				copyRecord(b, recordOfTorn, recordOfOld)
				copy(b[recordOfOld:], one)
				return b
			},
			func(b []byte) []byte {
				copyRecord(b, recordOfTorn, recordOfOld)
				clear(b[recordOfOld : recordOfOld+recordLength])
				return b
			})},
		{"a record put a second time behind the last one", journalEdits(func(b []byte) []byte { copyRecord(b, behindRecords, recordOfOld); return b })},
		{"a record of block 2 from the journal of an earlier mount put behind the last one, where its number is due", []func(c *crashed){func(c *crashed) {
			c.edit(func(b []byte) []byte {
				copy(b[behindRecords:behindRecords+recordLength], c.earlier[behindRecords:])
				return b
			})
		}}},
	}
}

func journalReplays() []journalAttack {
	earlier := func(sec int64) func(c *crashed) { // with a time of the file
		return func(c *crashed) {
			c.edit(func([]byte) []byte { return c.earlier })
			times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec}}
			c.must(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("a"), times, 0))
		}
	}
	own := func(c *crashed) { // with the inode number that it has had
		c.must(os.Remove(c.journal()))
		c.must(os.Link(c.kept("earlier"), c.journal()))
	}
	clean := func(c *crashed) {
		for name := range c.now {
			c.must(os.WriteFile(c.path(name), c.clean[name], 0o600))
		}
	}
	return []journalAttack{
		{"the journal put back as it was at an earlier moment of the same mount, in front of the record of block 4", journalEdits(func(b []byte) []byte {
			clear(b[recordOfOld:])
			return b
		})},
		{"the journal removed", []func(c *crashed){func(c *crashed) { c.must(os.Remove(c.journal())) }}},
		{"the journal of an earlier mount, which has a record of block 2, in its place; or a copy of it, and the file's time put back",
			[]func(c *crashed){own, earlier(tamperedTime)}},
		{"a copy of it, the file being more than ten seconds newer", []func(c *crashed){earlier(1 << 33)}},
		{"a journal of this or of an earlier mount put back after a clean end", []func(c *crashed){
			clean, func(c *crashed) { clean(c); earlier(tamperedTime)(c) }, func(c *crashed) { clean(c); own(c) },
		}},
		{"the journal of another volume, of the same key service or of another one", []func(c *crashed){
			func(c *crashed) { c.edit(func([]byte) []byte { return c.foreign[0] }) },
			func(c *crashed) { c.edit(func([]byte) []byte { return c.foreign[1] }) },
		}},
	}
}

func journalPlaces() []journalAttack {
	instead := func(make func(c *crashed) error) func(c *crashed) {
		return func(c *crashed) { c.must(errors.Join(os.Remove(c.journal()), make(c))) }
	}
	return []journalAttack{
		{"the journal replaced by a link to one that is outside, a fifo or a directory", []func(c *crashed){
			instead(func(c *crashed) error { return os.Symlink(c.kept("journal"), c.journal()) }),
			instead(func(c *crashed) error { return unix.Mkfifo(c.journal(), 0o600) }),
			instead(func(c *crashed) error { return os.Mkdir(c.journal(), 0o755) }),
		}},
		{"two files with records swapped", []func(c *crashed){func(c *crashed) {
			c.must(unix.Renameat2(unix.AT_FDCWD, c.path("a"), unix.AT_FDCWD, c.path("b"), unix.RENAME_EXCHANGE))
		}}},
		{"each of them in the place of the other", []func(c *crashed){func(c *crashed) {
			c.must(os.WriteFile(c.path("a"), c.image["b"], 0o600))
			c.must(os.WriteFile(c.path("b"), c.image["a"], 0o600))
		}}},
		{"a copy in the place of a file with records", []func(c *crashed){func(c *crashed) {
			c.must(os.Remove(c.path("a")))
			c.must(os.WriteFile(c.path("a"), c.image["a"], 0o600))
		}}},
		{"a file with records moved out of the volume, and a link to it in its place", []func(c *crashed){
			func(c *crashed) {
				c.must(os.Remove(c.path("a")))
				c.must(os.Symlink(c.kept("a"), c.path("a")))
			},
		}},
		{"its directory moved out of the volume, and a link to it in its place", []func(c *crashed){
			func(c *crashed) {
				out := c.kept("d")
				c.must(errors.Join(os.RemoveAll(out), os.Rename(c.dir, out), os.Symlink(out, c.dir)))
			},
		}},
	}
}

// journalRows does each attack to the volume as the power cut has left it.
func journalRows(t *testing.T) (rows []string) {
	c := newCrashed(t)
	c.restore()
	if seen := c.observe().reader; seen != asBefore {
		t.Fatalf("before anything was done: %s", seen)
	}
	for _, a := range journalAttacks() {
		var seen outcome
		for i, way := range a.ways {
			c.restore()
			way(c)
			o := c.observe()
			if i > 0 && o != seen {
				t.Errorf("%s: way %d has another outcome: %q, not %q", a.name, i, o, seen)
			}
			seen = o
		}
		rows = append(rows, rowOf(a.name, seen))
	}
	return rows
}

// observe verifies the volume, mounts it, if it can be mounted, and reads the files.
func (c *crashed) observe() outcome {
	c.t.Helper()
	var found []string
	for _, said := range verifyDirs(c.t, c.r) {
		for _, text := range strings.Split(said, ", ") {
			if !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
	}
	slices.Sort(found)
	o := outcome{verify: strings.Join(found, ", ")}
	left, _ := os.ReadFile(c.journalIfRegular())
	outside := c.read(c.kept("a"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := c.r.tryMount()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > mostForJournal {
		c.t.Errorf("the mount has allocated %d bytes", n)
	}
	if err != nil {
		if !errors.Is(err, volume.ErrJournal) {
			c.t.Fatalf("the mount is refused: %v", err)
		}
		if now, _ := os.ReadFile(c.journalIfRegular()); !bytes.Equal(now, left) {
			c.t.Error("a journal that was refused has been changed")
		}
		o.reader = "the mount is refused: " + volume.ErrJournal.Error()
		return o
	}
	o.reader = c.observeFiles()
	c.r.unmount()
	if _, err := os.Lstat(c.path("a")); err != nil || !c.isOurs("a") {
		if !bytes.Equal(c.read(c.kept("a")), outside) {
			c.t.Error("a file outside of the volume was written to")
		}
	}
	if _, err := os.Lstat(c.journal()); !errors.Is(err, os.ErrNotExist) {
		c.t.Errorf("the journal is still there: %v", err)
	}
	return o
}

// journalIfRegular is the path of the journal, or "".
func (c *crashed) journalIfRegular() string {
	if st, err := os.Lstat(c.journal()); err != nil || !st.Mode().IsRegular() || st.Size() > 1<<30 {
		return ""
	}
	return c.journal()
}

// isOurs reports whether a file is reached without a link.
func (c *crashed) isOurs(name string) bool {
	for _, path := range []string{c.dir, c.path(name)} {
		if st, err := os.Lstat(path); err != nil || st.Mode()&os.ModeSymlink != 0 {
			return false
		}
	}
	return true
}

// observeFiles reads both files block by block.
func (c *crashed) observeFiles() string {
	var texts []string
	note := func(text string) {
		if text != "" && !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	swapped := 0
	for _, name := range []string{"a", "b"} {
		f, err := os.Open(c.r.path("d/" + name))
		if err != nil {
			note(word(err) + " at open")
			continue
		}
		content := map[int][]byte{}
		for b := range tamperedBlocks + 1 {
			part := make([]byte, min(block, tamperedSize-b*block))
			if _, err := f.ReadAt(part, int64(b*block)); err == nil {
				content[b] = part
			} else if !errors.Is(err, unix.EIO) {
				c.t.Fatalf("block %d of %s: %v", b, name, err)
			}
		}
		c.must(f.Close())
		as := name
		if other := map[string]string{"a": "b", "b": "a"}[name]; bytes.Equal(content[0], c.now[other][:block]) {
			as = other
			swapped++
		}
		bad, older := c.compareBlocks(as, content)
		if len(bad) > 0 {
			note("EIO for block " + strings.Join(bad, " and "))
		}
		switch {
		case len(older) == 1:
			note(undetected + ": reads the older block " + older[0])
		case len(older) > 1:
			note(undetected + ": reads the older blocks " + strings.Join(older, " and "))
		}
	}
	if swapped == 2 {
		texts = slices.Insert(texts, 0, undetected+": reads as the other one, both")
	}
	if len(texts) == 0 {
		return asBefore
	}
	return strings.Join(texts, "; ")
}

// compareBlocks says which blocks cannot be read, and which are older ones.
func (c *crashed) compareBlocks(name string, content map[int][]byte) (bad, older []string) {
	for b := range tamperedBlocks + 1 {
		lo, hi := b*block, min((b+1)*block, tamperedSize)
		switch got := content[b]; {
		case got == nil:
			bad = append(bad, fmt.Sprint(b))
		case bytes.Equal(got, c.now[name][lo:hi]):
		case bytes.Equal(got, c.then[name][lo:hi]):
			older = append(older, fmt.Sprint(b))
		default:
			c.t.Errorf("block %d of %s is neither the new nor the old one", b, name)
		}
	}
	return bad, older
}
