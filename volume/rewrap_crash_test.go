package volume

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// TestRewrapKilledAnywhere stops a rewrap before each of its calls in turn, and in the midst of each write. Every file opens
// with its content, and the next rewrap finishes the work.
func TestRewrapKilledAnywhere(t *testing.T) {
	const files = sealEach + 3 // so that they are synced together
	for _, tear := range []int64{0, 1, 22, 300, 511} {
		t.Run(fmt.Sprintf("tear %d", tear), func(t *testing.T) {
			r := newRewrapRig(t)
			r.fill(files)
			version := 1
			for at := 1; ; at++ {
				if at > 500 {
					t.Fatal("the rewrap never ends")
				}
				r.close()
				version = r.fake.Rotate()
				l := &lethal{at: at, tear: tear}
				result, _, err := r.rewrap(RewrapOptions{Store: &backing.Store{Hook: l}})
				dead := l.n >= at
				if !dead && (err != nil || result.Rewrapped != files) {
					t.Fatalf("%d calls, none of which failed: %+v, %v", at-1, result, err)
				}
				r.open(&backing.Store{})
				r.check()
				if !dead {
					if at < 4*files {
						t.Errorf("only %d calls", at)
					}
					break
				}
				if at%7 == 0 { // seldom, because what was done in part is to be met by the next one
					r.close()
					r.mustRewrap(RewrapOptions{})
					r.checkVersions(version)
					r.open(&backing.Store{})
				}
			}
			r.checkVersions(version)
		})
	}
}

// slotGuard watches the writes to headers, and finds each that goes over a slot while the other one, as it is on disk, is
// not valid or not what it will be: after a power cut then, there might be no slot.
type slotGuard struct {
	t *testing.T

	mu      sync.Mutex
	durable map[uint64][]byte // headers as of the last sync, by inode; guarded by mu
	open    map[uint64]int    // descriptors of our own, by inode; guarded by mu
	writes  int               // seen; guarded by mu
}

func newSlotGuard(t *testing.T) *slotGuard {
	return &slotGuard{t: t, durable: map[uint64][]byte{}, open: map[uint64]int{}}
}

func (g *slotGuard) Before(c *backing.Call) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch c.Op {
	case backing.OpSync:
		if ino := g.inode(c.FD); ino != 0 && g.open[ino] != 0 {
			g.durable[ino] = g.header(ino)
		}
	case backing.OpSyncFS:
		for ino := range g.open {
			g.durable[ino] = g.header(ino)
		}
	case backing.OpWrite:
		if c.Offset < 1024 && c.Size == 512 {
			g.write(c)
		}
	}
	return nil
}

func (g *slotGuard) inode(fd int) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return st.Ino
}

// watch says that all is on disk.
func (g *slotGuard) watch(path string) {
	f, err := os.Open(path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { f.Close() })
	ino := g.inode(int(f.Fd()))
	g.open[ino] = int(f.Fd())
	g.durable[ino] = g.header(ino)
}

func (g *slotGuard) header(ino uint64) []byte {
	b := make([]byte, 1024)
	if _, err := unix.Pread(g.open[ino], b, 0); err != nil {
		g.t.Error(err)
	}
	return b
}

func (g *slotGuard) write(c *backing.Call) {
	ino := g.inode(c.FD)
	if g.open[ino] == 0 {
		return
	}
	g.writes++
	other := 512 - c.Offset
	now, disk := g.header(ino)[other:other+512], g.durable[ino][other:other+512]
	if _, err := crypto.DecodeSlot(disk); err != nil || !bytes.Equal(now, disk) {
		g.t.Errorf("the slot at %d is written while the other one is not durable (%v)", c.Offset, err)
	}
}

// TestRewrapSurvivesPowerCut watches the order of writes and syncs, with groups of several sizes.
func TestRewrapSurvivesPowerCut(t *testing.T) {
	for _, files := range []int{1, sealEach, 200} {
		r := newRewrapRig(t)
		r.fill(files)
		guard := newSlotGuard(t)
		for _, stored := range r.names {
			guard.watch(r.path(stored))
		}
		store := &backing.Store{Hook: guard}
		r.fake.Rotate()
		r.mustRewrap(RewrapOptions{Store: store})
		if guard.writes != 2*files {
			t.Errorf("%d files: %d slots were written", files, guard.writes)
		}
		r.check()
		r.checkVersions(2)
	}
}

// TestRewrapSyncsWhatTheMountWrote has the mount seal a file, which it does not sync, between a rewrap's look at it and write.
func TestRewrapSyncsWhatTheMountWrote(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(1)
	plain := "d0/e0/file0"
	f := r.load(r.names[plain], true)
	if err := f.unseal(); err != nil {
		t.Fatal(err)
	}
	guard := newSlotGuard(t)
	guard.watch(r.path(r.names[plain]))
	root, err := openRoot(&backing.Store{Hook: guard}, r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.close()
	r.fake.Rotate()
	w := &rewrap{RewrapOptions: RewrapOptions{Keyring: r.fake}, root: root, store: root.store}
	if err := w.prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	items := make(chan *rewrapItem, 1)
	if err := w.scan(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	it := <-items
	defer w.closeItem(it)
	if answered, err := w.askFor(t.Context(), []*rewrapItem{it}); err != nil || len(answered) != 1 {
		t.Fatal(answered, err)
	}
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if written, err := w.replace(it, false); err != nil || !written || guard.writes != 1 {
		t.Errorf("written %v, %d times, %v", written, guard.writes, err)
	}
	r.check()
	if h := onDisk(t, r.path(r.names[plain])); h.Flags&crypto.FlagSealed == 0 {
		t.Error("the seal is gone")
	}
}

// TestRewrapSyncFails: without a sync the old key stays where it is.
func TestRewrapSyncFails(t *testing.T) {
	for _, files := range []int{2, sealEach + 1} {
		r := newRewrapRig(t)
		r.fill(files)
		r.close()
		r.fake.Rotate()
		op := backing.OpSync
		if files > sealEach {
			op = backing.OpSyncFS
		}
		hook := &faults{}
		if op == backing.OpSyncFS {
			hook.arm(op, 1, unix.EIO) // the second one
		} else {
			hook.arm(op, 2+files, unix.EIO) // two for envfs.json, and one before the first slots
		}
		if _, _, err := r.rewrap(RewrapOptions{Store: &backing.Store{Hook: hook}}); err == nil {
			t.Fatal("no error")
		}
		for plain := range r.want {
			if counts, other := r.versions(plain); counts != 2 || other != 1 {
				t.Errorf("%d files: versions %d and %d", files, counts, other)
			}
		}
		r.mustRewrap(RewrapOptions{})
		r.checkVersions(2)
		r.open(&backing.Store{})
		r.check()
	}
}
