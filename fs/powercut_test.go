package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/backing/powercut"
	"github.com/envfs/envfs/volume"
)

// powerRig is a mounted volume whose ciphertext directory is recorded.
type powerRig struct {
	*rig
	rec *powercut.Recorder
}

func newPowerRig(t *testing.T) *powerRig {
	t.Helper()
	r := &powerRig{rig: newRig(t, Options{}, func(r *rig) {
		r.cipher = filepath.Join(powercut.TempDir(t), "cipher")
		r.open.CrashSafety = volume.SafeFull
	})}
	r.unmount()
	var err error
	if r.rec, err = powercut.Record(r.cipher, nil); err != nil {
		t.Fatal(err)
	}
	r.open.Store = &backing.Store{Hook: r.rec}
	r.mount()
	return r
}

// log unmounts and returns the record.
func (r *powerRig) log() *powercut.Log {
	r.t.Helper()
	if r.server != nil {
		r.unmount()
	}
	return r.finished(r.rec)
}

func (r *powerRig) finished(rec *powercut.Recorder) *powercut.Log {
	r.t.Helper()
	l, err := rec.Log()
	if err == nil {
		err = l.CheckComplete()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// cut makes n power cuts in the record l. check is given the mount of what is on the disk then. One in eight times the power
// fails once more while that is mounted and unmounted.
func (r *powerRig) cut(l *powercut.Log, n int, check func(at int, disk *powercut.Image, mount string) []powercut.Violation) {
	r.t.Helper()
	seed, made := powercut.Seed(r.t, 1), 0
	err := l.EachCut(seed, powercut.Count(r.t, n), func(at int, disk *powercut.Image) error {
		made++
		if made%8 != 0 {
			return r.restart(disk, func(mount string) []powercut.Violation { return check(at, disk, mount) })
		}
		again, err := r.recordRestart(disk)
		if err != nil {
			return err
		}
		return again.EachCut(seed+uint64(made), 3, func(_ int, later *powercut.Image) error {
			made++
			return r.restart(later, func(mount string) []powercut.Violation { return check(at, disk, mount) })
		})
	})
	if err != nil {
		r.t.Error(err)
	}
	r.t.Logf("%d power cuts in %d events", made, l.Len())
}

// restart mounts a disk for check.
func (r *powerRig) restart(disk *powercut.Image, check func(mount string) []powercut.Violation) error {
	dir := filepath.Join(filepath.Dir(r.cipher), "disk")
	inodes, err := disk.WriteTo(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			r.t.Error(err)
		}
	}()
	return r.mountAt(dir, inodes, check)
}

func (r *powerRig) mountAt(dir string, hook backing.Hook, check func(mount string) []powercut.Violation) error {
	again := &rig{t: r.t, cipher: dir, dir: r.dir, kr: r.kr, opts: r.opts, log: &logSink{}, open: r.open}
	again.open.Store = &backing.Store{Hook: hook}
	if err := again.tryMount(); err != nil {
		return powercut.Errors([]powercut.Violation{{Rule: 5, Text: err.Error()}})
	}
	found := check(r.dir)
	again.unmount()
	if len(found) > 0 {
		return fmt.Errorf("%w\nthe mount said:\n%s", powercut.Errors(found), again.log)
	}
	return nil
}

// recordRestart records a mount and an unmount of the disk.
func (r *powerRig) recordRestart(disk *powercut.Image) (*powercut.Log, error) {
	dir := filepath.Join(filepath.Dir(r.cipher), "again")
	if err := os.RemoveAll(dir); err != nil {
		r.t.Fatal(err)
	}
	inodes, err := disk.WriteTo(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	rec, err := powercut.Record(dir, inodes)
	if err != nil {
		r.t.Fatal(err)
	}
	err = r.mountAt(dir, rec, func(string) []powercut.Violation { return nil })
	if err != nil {
		return nil, err
	}
	return r.finished(rec), nil
}

// guarantee is that of volume.SafeFull.
func guarantee() powercut.Guarantee {
	return powercut.Guarantee{Block: crypto.BlockSize, NewMayBeShort: true}
}

// workloads are programs that work on the mount with the calls of a Script.
var workloads = []struct {
	name string
	run  func(w *worker)
}{
	{"append records", (*worker).appendRecords},
	{"overwrite parts of blocks", (*worker).overwrite},
	{"save in an editor", (*worker).saveFiles},
	{"rename storm", (*worker).renameStorm},
	{"truncate", (*worker).truncate},
	{"directories", (*worker).directories},
	{"long names", (*worker).longNames},
	{"links", (*worker).links},
}

// TestPowerCuts cuts the power under each of the workloads.
func TestPowerCuts(t *testing.T) {
	for i, workload := range workloads {
		t.Run(workload.name, func(t *testing.T) {
			r := newPowerRig(t)
			s := powercut.NewScript(powercut.Directory(r.dir), r.rec.Now)
			workload.run(&worker{Script: s, rnd: rand.New(rand.NewPCG(powercut.Seed(t, 1), uint64(i)))})
			s.CloseAll()
			if s.Err() != nil {
				t.Fatal(s.Err())
			}
			r.cut(r.log(), 30, func(at int, _ *powercut.Image, mount string) []powercut.Violation {
				return s.Check(mount, at, guarantee())
			})
		})
	}
}

// worker is a Script with chance.
type worker struct {
	*powercut.Script
	rnd *rand.Rand
}

func (w *worker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.rnd.Uint32())
	}
	return b
}

func (w *worker) oneOf(names ...string) string { return names[w.rnd.IntN(len(names))] }

// appendRecords appends to logs, each record durable before the next one.
func (w *worker) appendRecords() {
	logs := []string{"log0", "log1", "log2"}
	for _, name := range logs {
		w.Create(name)
	}
	w.SyncDir(".")
	for range 120 {
		name := w.oneOf(logs...)
		w.Append(name, w.bytes(20+w.rnd.IntN(400)))
		w.Sync(name)
		if w.rnd.IntN(10) == 0 {
			w.Close(name)
		}
	}
}

// overwrite changes parts of a file in place, some of them in one block, some over several.
func (w *worker) overwrite() {
	const size = 60_000
	w.Create("data")
	w.Write("data", w.bytes(size), 0)
	w.Sync("data")
	w.SyncDir(".")
	for range 80 {
		w.Write("data", w.bytes(1+w.rnd.IntN(9000)), w.rnd.Int64N(size))
		if w.rnd.IntN(2) == 0 {
			w.Sync("data")
		}
		if w.rnd.IntN(15) == 0 {
			w.Close("data")
		}
	}
}

// saveFiles replaces files as an editor does.
func (w *worker) saveFiles() {
	w.Mkdir("docs")
	w.SyncDir(".")
	for i := range 40 {
		name := "docs/" + w.oneOf("letter", "list", "poem")
		temp := fmt.Sprintf("%s.%d~", name, i)
		w.Create(temp)
		w.Write(temp, w.bytes(w.rnd.IntN(20_000)), 0)
		w.Sync(temp)
		w.Close(temp)
		w.Rename(temp, name)
		w.SyncDir("docs")
	}
}

// renameStorm moves files within and between directories, over each other and in exchange.
func (w *worker) renameStorm() {
	var places []string
	for _, dir := range []string{"a", "b"} {
		w.Mkdir(dir)
		for i := range 4 {
			places = append(places, fmt.Sprintf("%s/%d", dir, i))
		}
	}
	for i, name := range places[:6] {
		w.Create(name)
		w.Write(name, bytes.Repeat([]byte{byte(i)}, 1000*i+1), 0)
		w.Sync(name)
		w.Close(name)
	}
	for range 150 {
		from, to := w.oneOf(places...), w.oneOf(places...)
		switch {
		case !w.Exists(from):
			w.SyncDir(w.oneOf("a", "b", "."))
		case w.Exists(to) && w.rnd.IntN(2) == 0:
			w.Exchange(from, to)
		case w.Exists(to) && w.rnd.IntN(4) > 0: // so that some are left
		default:
			w.Rename(from, to)
		}
	}
}

// truncate makes files shorter and longer.
func (w *worker) truncate() {
	w.Create("f")
	w.Write("f", w.bytes(30_000), 0)
	w.Sync("f")
	w.SyncDir(".")
	for range 80 {
		switch w.rnd.IntN(6) {
		case 0, 1:
			w.Truncate("f", w.rnd.Int64N(w.Size("f")+1))
		case 2:
			w.Truncate("f", w.Size("f")+w.rnd.Int64N(10_000))
		case 3:
			w.Append("f", w.bytes(w.rnd.IntN(10_000)+1))
		case 4:
			w.Sync("f")
		case 5:
			if w.rnd.IntN(3) == 0 {
				w.Close("f")
			}
		}
	}
}

// directories makes and removes trees.
func (w *worker) directories() {
	for i := range 12 {
		top := fmt.Sprint("t", i%3)
		if w.Exists(top) {
			w.Unlink(top + "/x/y/file")
			w.Rmdir(top + "/x/y")
			w.Rmdir(top + "/x")
			w.Rmdir(top)
			w.SyncDir(".")
		}
		w.Mkdir(top)
		w.Mkdir(top + "/x")
		w.SyncDir(top)
		w.Mkdir(top + "/x/y")
		w.Create(top + "/x/y/file")
		w.Write(top+"/x/y/file", w.bytes(500), 0)
		w.Sync(top + "/x/y/file")
		w.Close(top + "/x/y/file")
		if w.rnd.IntN(2) == 0 {
			w.SyncDir(top + "/x/y")
		}
		w.SyncDir(".")
	}
}

// longNames uses names that are stored as a hash with a file beside it.
func (w *worker) longNames() {
	var names []string
	for _, c := range "abcdef" {
		names = append(names, "d/"+strings.Repeat(string(c), 255))
	}
	names = append(names, "d/short", "d/tiny")
	w.Mkdir("d")
	w.SyncDir(".")
	for range 100 {
		name, other := w.oneOf(names...), w.oneOf(names...)
		switch n := w.rnd.IntN(8); {
		case !w.Exists(name):
			w.Create(name)
			w.Write(name, w.bytes(100), 0)
			w.Close(name)
		case n == 0:
			w.Unlink(name)
		case n < 3:
			w.SyncDir("d")
		case n == 3:
			w.Sync(name)
		case n == 4 && w.Exists(other):
			w.Exchange(name, other)
		case n == 5 && !w.Exists(other):
			w.Link(name, other)
		default:
			w.Rename(name, other)
		}
	}
}

// links makes hard and symbolic links, and removes them.
func (w *worker) links() {
	w.Create("file")
	w.Write("file", w.bytes(5000), 0)
	w.Sync("file")
	w.SyncDir(".")
	for i := range 60 {
		name := fmt.Sprint("link", w.rnd.IntN(8))
		switch {
		case w.Exists(name):
			w.Unlink(name)
		case w.rnd.IntN(2) == 0:
			w.Symlink(fmt.Sprint("target", i), name)
		default:
			w.Link("file", name)
		}
		if w.rnd.IntN(3) == 0 {
			w.SyncDir(".")
		}
	}
}
