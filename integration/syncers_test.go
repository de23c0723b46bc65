package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// syncer is a program that changes files in a directory until it is ended or they fail it, and keeps a ledger elsewhere, by
// which can be said what must be in them, and what may be.
type syncer struct {
	work  func(dir, ledger string) error
	file  string // what it changes, if it can be said of what must be in it
	check func(f blocksRead, l ledger) error
}

func syncers() map[string]syncer {
	return map[string]syncer{
		"append": {appendRecords, "log", checkRecords}, "overwrite": {overwriteBlocks, "blocks", checkBlocksWritten},
		"save": {saveLetters, "letter", checkLetter}, "cut": {growAndCut, "cut", checkCut}, "churn": {churn, "", nil},
	}
}

// ledger is a row of pairs of numbers. What the pair means is up to the program.
type ledger [][2]uint64

// ledgerFile is where a program keeps it.
type ledgerFile struct{ f *os.File }

func openLedger(path string) (ledgerFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	return ledgerFile{f}, err
}

// set writes a pair at once.
func (l ledgerFile) set(i int, first, second uint64) error {
	pair := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), second)
	_, err := l.f.WriteAt(pair, int64(i)*int64(len(pair)))
	return err
}

func readLedger(path string) (l ledger, err error) {
	content, err := os.ReadFile(path)
	for ; len(content) >= 16; content = content[16:] {
		l = append(l, [2]uint64{binary.BigEndian.Uint64(content), binary.BigEndian.Uint64(content[8:])})
	}
	if err == nil && len(l) == 0 {
		err = errors.New("nothing in the ledger " + path)
	}
	return l, err
}

const recordSize = 100

func record(n uint64) []byte { return fmt.Appendf(nil, "%-99d\n", n) }

// appendRecords appends to a log and syncs it. The ledger has how many records were synced, and how many were written.
func appendRecords(dir, path string) error {
	l, err := openLedger(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	for n := uint64(0); err == nil; n++ {
		if err = l.set(0, n, n+1); err == nil {
			_, err = f.Write(record(n))
		}
		if err == nil {
			err = f.Sync()
		}
	}
	return err
}

func checkRecords(f blocksRead, l ledger) error {
	synced, written := l[0][0], l[0][1]
	if n := uint64(len(f.content)); n < synced*recordSize || n > written*recordSize {
		return fmt.Errorf("%d bytes, and %d records were synced, %d written", n, synced, written)
	}
	var want []byte
	for n := range written {
		want = append(want, record(n)...)
	}
	last := (len(f.content) - 1) / stampSize
	for i, block := range f.blocks() {
		if f.torn[i] && i == last {
			continue // which was being written
		}
		if f.torn[i] || !bytes.HasPrefix(want[i*stampSize:], block) {
			return fmt.Errorf("another content in block %d of %d (%d records synced, %d written)", i, last+1, synced, written)
		}
	}
	return nil
}

const overwrittenBlocks = 64

// overwriteBlocks writes blocks of a file again and again, some at a time, and syncs them. The ledger has, for each block, the
// generation that was synced and the newest one written.
func overwriteBlocks(dir, path string) error {
	l, err := openLedger(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "blocks"), os.O_CREATE|os.O_RDWR, 0o600)
	synced := make([]uint64, overwrittenBlocks)
	blocks := rand.Perm(overwrittenBlocks) // at first all
	for generation := uint64(1); err == nil; generation++ {
		for _, i := range blocks {
			if err = l.set(i, synced[i], generation); err == nil {
				_, err = f.WriteAt(stamp{1, uint64(i), generation}.bytes(), int64(i)*stampSize)
			}
			if err != nil {
				return err
			}
		}
		if err = f.Sync(); err != nil {
			return err
		}
		for _, i := range blocks {
			synced[i] = generation
			if err = l.set(i, generation, generation); err != nil {
				return err
			}
		}
		blocks = rand.Perm(overwrittenBlocks)[:1+rand.IntN(12)]
	}
	return err
}

func checkBlocksWritten(f blocksRead, l ledger) error {
	f.content = append(f.content, make([]byte, len(l)*stampSize-len(f.content))...) // what was never written
	for i, block := range f.blocks() {
		pair := l[i]
		if f.torn[i] && pair[0] < pair[1] {
			continue
		}
		s, err := stampOf(block)
		if err != nil || f.torn[i] {
			return fmt.Errorf("block %d (generation %d synced, %d written), torn %t: %w", i, pair[0], pair[1], f.torn[i], err)
		}
		if s.generation < pair[0] || s.generation > pair[1] || s.generation > 0 && (s.file != 1 || s.block != uint64(i)) {
			return fmt.Errorf("block %d: %v, and generation %d was synced, %d written", i, s, pair[0], pair[1])
		}
	}
	return nil
}

// saveLetters writes a file as an editor does: anew, synced, renamed over the old one, and the directory synced. The ledger has
// the generation that was saved, and that which was begun.
func saveLetters(dir, path string) error {
	l, err := openLedger(path)
	for n := uint64(1); err == nil; n++ {
		if err = l.set(0, n-1, n); err == nil {
			err = saveLetter(dir, stamped(2, rand.Uint64N(30), n))
		}
	}
	return err
}

func saveLetter(dir string, content []byte) error {
	f, err := os.CreateTemp(dir, ".saving-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, "letter")); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func checkLetter(f blocksRead, l ledger) error {
	for i, block := range f.blocks() {
		s, err := stampOf(block)
		if err != nil || f.torn[i] {
			return fmt.Errorf("block %d, torn %t: %w", i, f.torn[i], err)
		}
		if s.generation < l[0][0] || s.generation > l[0][1] || s.file != 2 || s.block != uint64(i) {
			return fmt.Errorf("%v, and %d was saved, %d begun", s, l[0][0], l[0][1])
		}
	}
	if f.missing && l[0][0] > 0 {
		return fmt.Errorf("missing, and %d was saved", l[0][0])
	}
	return nil
}

// growAndCut writes a file longer and cuts it again, to odd sizes. The ledger has the shortest and the longest that it was since
// it was last synced.
func growAndCut(dir, path string) error {
	l, err := openLedger(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "cut"), os.O_CREATE|os.O_RDWR, 0o600)
	content := noise(100_000, 77)
	size, least, most := uint64(0), uint64(0), uint64(0)
	for err == nil {
		to := rand.Uint64N(uint64(len(content)))
		least, most = min(least, to), max(most, to)
		if err = l.set(0, least, most); err != nil {
			break
		}
		if to < size {
			err = f.Truncate(int64(to))
		} else {
			_, err = f.WriteAt(content[size:to], int64(size))
		}
		if size = to; err == nil && rand.IntN(4) == 0 {
			if err = f.Sync(); err == nil {
				least, most = size, size
				err = l.set(0, least, most)
			}
		}
	}
	return err
}

func checkCut(f blocksRead, l ledger) error {
	least, most := int(l[0][0]), int(l[0][1])
	if n := len(f.content); n < least || n > most {
		return fmt.Errorf("%d bytes, and it had %d to %d", n, least, most)
	}
	want := noise(100_000, 77)
	for i, block := range f.blocks() {
		at := i * stampSize
		if f.torn[i] && at+len(block) > least {
			continue
		}
		written := 0
		for written < len(block) && block[written] == want[at+written] {
			written++
		}
		// Behind what was synced a block was written, or not yet.
		if f.torn[i] || written < min(least-at, len(block)) || strings.Trim(string(block[written:]), "\x00") != "" {
			return fmt.Errorf("another content in the block at %d, from byte %d on; torn %t, up to %d it was synced", at, written, f.torn[i], least)
		}
	}
	return nil
}

// churn makes, writes, links, renames and removes whatever it likes, and syncs nothing. The ledger counts.
func churn(dir, path string) error {
	l, err := openLedger(path)
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "churned")
	err = os.Mkdir(dir, 0o755)
	name := func() string {
		n := rand.IntN(12)
		return filepath.Join(dir, fmt.Sprint("d", rand.IntN(3)), fmt.Sprint(n, strings.Repeat("n", 60*(n%4))))
	}
	for n := uint64(0); err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY); n++ {
		if err := l.set(0, n, n); err != nil {
			return err
		}
		switch rand.IntN(8) {
		case 0:
			err = os.Mkdir(filepath.Dir(name()), 0o755)
		case 1:
			err = unix.Rmdir(filepath.Dir(name()))
		case 2, 3, 4:
			err = os.WriteFile(name(), stamped(3, rand.Uint64N(20), n), 0o600)
		case 5:
			err = os.Link(name(), name())
		case 6:
			err = unix.Rename(name(), name())
		default:
			err = unix.Unlink(name())
		}
	}
	return err
}

// syncing is all of these programs at work in a directory.
type syncing struct {
	r         *rig
	dir       string // below the mount
	ledgers   string
	processes []*process
}

func (r *rig) startSyncing(dir string) *syncing {
	r.t.Helper()
	s := &syncing{r: r, dir: dir, ledgers: r.below("ledgers", dir)}
	r.mkdir(r.path(dir))
	r.mkdir(s.ledgers)
	for name := range syncers() {
		s.processes = append(s.processes, startTask(r.t, name, r.path(dir), filepath.Join(s.ledgers, name)))
	}
	return s
}

// goOn waits until each program has done something more.
func (s *syncing) goOn() {
	s.r.t.Helper()
	for _, p := range s.processes {
		path := filepath.Join(s.ledgers, p.name)
		before, _ := os.ReadFile(path) // it may not be there yet
		s.r.until(p.name+" to go on", func() bool {
			select {
			case <-p.ended:
				s.r.t.Fatalf("%s has ended by itself: %v\n%s", p.name, p.cmd.ProcessState, &p.output)
			default:
			}
			now, _ := os.ReadFile(path)
			return !bytes.Equal(now, before)
		})
	}
}

// end ends the programs. Each must still be at work.
func (s *syncing) end() {
	s.r.t.Helper()
	for _, p := range s.processes {
		p.kill()
	}
}

// blocksRead is what can be read of a file.
type blocksRead struct {
	content []byte
	torn    map[int]bool // blocks that cannot be read; zeros stand for them
	missing bool         // there is no such file
}

func readBlocks(path string) (b blocksRead, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return blocksRead{missing: true}, nil
	}
	if err != nil {
		return b, err
	}
	b.torn = map[int]bool{}
	st, err := f.Stat()
	if err != nil {
		return b, errors.Join(err, f.Close())
	}
	b.content = make([]byte, st.Size())
	for i, block := range b.blocks() {
		if _, err := f.ReadAt(block, int64(i)*stampSize); errors.Is(err, unix.EIO) {
			b.torn[i] = true
		} else if err != nil {
			return b, errors.Join(err, f.Close())
		}
	}
	return b, f.Close()
}

// blocks cuts the content into blocks.
func (b blocksRead) blocks() (blocks [][]byte) {
	return slices.Collect(slices.Chunk(b.content, stampSize))
}

// checkSynced looks whether a directory is as the programs may have left it, as their ledgers say, and returns how many blocks
// cannot be read. Those may only be blocks that were being written.
func checkSynced(t *testing.T, dir, ledgers string) (torn int) {
	t.Helper()
	for name, task := range syncers() {
		if task.check == nil {
			continue
		}
		l, err := readLedger(filepath.Join(ledgers, name))
		if err != nil {
			t.Error(err)
			continue
		}
		f, err := readBlocks(filepath.Join(dir, task.file))
		if err == nil {
			err = task.check(f, l)
		}
		if err != nil {
			t.Errorf("%s: %v", task.file, err)
		}
		torn += len(f.torn)
	}
	return torn
}
