package volume

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// disk is a Hook that knows what a disk could hold if the power failed now: each sector of a file may be as it was at any
// moment since the last sync, and so may the file's size. Sectors come and go with the size.
type disk struct {
	mu    sync.Mutex
	files map[uint64]*diskFile // by inode number
	calls int                  // that change or sync something
	cutAt int                  // the power fails before this one; 0: never
	dead  bool
}

// diskFile is a file whose content was changed.
type diskFile struct {
	durable []byte
	pending []diskChange // since the last sync
}

type diskChange struct {
	resizes bool
	to      func(b []byte) []byte
}

var errPowerCut = errors.New("the power has failed")

const sector = 512

func newDisk() *disk { return &disk{files: map[uint64]*diskFile{}} }

// store starts over with a disk on which all is durable.
func (d *disk) store() *backing.Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.calls, d.cutAt, d.dead = map[uint64]*diskFile{}, 0, 0, false
	return &backing.Store{Hook: d}
}

func (d *disk) Before(c *backing.Call) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch c.Op {
	case backing.OpRead, backing.OpStat, backing.OpReaddir, backing.OpOpen, backing.OpReadlink, backing.OpClose:
	default:
		d.calls++
		d.dead = d.dead || d.calls == d.cutAt
	}
	if d.dead {
		return errPowerCut
	}
	switch c.Op {
	case backing.OpWrite:
		data, off := append([]byte(nil), c.Data...), c.Offset
		d.change(c.FD, func(b []byte) []byte {
			b = grown(b, off+int64(len(data)))
			copy(b[off:], data)
			return b
		})
	case backing.OpTruncate:
		size := c.Size
		d.change(c.FD, func(b []byte) []byte { return grown(b, size)[:size] })
		f := d.files[inodeBehind(c.FD)]
		f.pending[len(f.pending)-1].resizes = true
	case backing.OpFallocate:
		if c.Flags&unix.FALLOC_FL_PUNCH_HOLE != 0 {
			off, end := c.Offset, c.Offset+c.Size
			d.change(c.FD, func(b []byte) []byte { clear(b[min(off, int64(len(b))):min(end, int64(len(b)))]); return b })
		}
	case backing.OpSync:
		if f := d.files[inodeBehind(c.FD)]; f != nil {
			f.settle()
		}
	case backing.OpSyncFS:
		for _, f := range d.files {
			f.settle()
		}
	}
	return nil
}

// grown returns b with at least size bytes; those behind b are zeros.
func grown(b []byte, size int64) []byte {
	if int64(len(b)) < size {
		b = append(b, make([]byte, size-int64(len(b)))...)
	}
	return b
}

func inodeBehind(fd int) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		panic(err)
	}
	return st.Ino
}

func (d *disk) change(fd int, how func([]byte) []byte) {
	ino := inodeBehind(fd)
	f := d.files[ino]
	if f == nil {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			panic(err)
		}
		f = &diskFile{durable: b}
		d.files[ino] = f
	}
	f.pending = append(f.pending, diskChange{to: how})
}

func (f *diskFile) settle() {
	for _, c := range f.pending {
		f.durable = c.to(f.durable)
	}
	f.pending = nil
}

// left is what a power cut leaves of the file: for its size and for each of its sectors, choose says how many of the n changes
// since the last sync have reached the disk.
func (f *diskFile) left(choose func(n int) int) []byte {
	n := len(f.pending)
	resized := choose(n) // changes of size that have reached the disk
	versions := make([][]byte, n+1)
	image := f.after(resized, resized)
	for at := 0; at < len(image); at += sector {
		written := choose(n)
		if versions[written] == nil {
			versions[written] = f.after(resized, written)
		}
		if v := versions[written]; at < len(v) {
			copy(image[at:min(at+sector, len(image))], v[at:])
		}
	}
	return image
}

// after returns what the file is after the first changes of its size and the first writes.
func (f *diskFile) after(resized, written int) []byte {
	b := append([]byte(nil), f.durable...)
	for i, c := range f.pending {
		if c.resizes && i < resized || !c.resizes && i < written {
			b = c.to(b)
		}
	}
	return b
}

// fail ends the volume as a power cut would and leaves on disk what could be there.
func (d *disk) fail(r *fileRig, choose func(n int) int) {
	r.t.Helper()
	d.mu.Lock()
	d.dead = true
	d.mu.Unlock()
	if r.vol != nil {
		_ = r.vol.Close() // in vain: nothing reaches the disk any more
		r.vol = nil
	}
	err := filepath.Walk(r.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		f := d.files[info.Sys().(*syscall.Stat_t).Ino]
		if f == nil {
			return nil
		}
		return os.WriteFile(path, f.left(choose), 0o600) // the same inode
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// The simplest power cuts: nothing, or everything, that was not synced is lost.
func loseAll(int) int    { return 0 }
func loseNone(n int) int { return n }

func loseSome(rnd *rand.Rand) func(n int) int {
	return func(n int) int { return rnd.IntN(n + 1) }
}

// begin opens the volume of r over the disk.
func (d *disk) begin(r *fileRig) {
	r.t.Helper()
	r.close()
	r.open(d.store())
}

// promised loads a file for writing that an application believes to be durable.
func mustWrite(t testing.TB, f *File, p []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func mustSync(t testing.TB, f *File) {
	t.Helper()
	if err := f.Sync(true); err != nil {
		t.Fatal(err)
	}
}

func mustTruncate(t testing.TB, f *File, size int64) {
	t.Helper()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// content reads the whole of a file of the rig.
func (r *fileRig) content(name string) []byte {
	r.t.Helper()
	f := r.load(name, false)
	defer f.Release()
	return readAll(r.t, f)
}
