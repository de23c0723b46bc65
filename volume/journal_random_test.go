package volume

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// crashModel is what an application knows of a file whose power may fail: what it held when it was last synced, and what it
// has held since.
type crashModel struct {
	versions [][]byte       // the first one is durable
	exposed  map[int64]bool // blocks that were overwritten as a whole since, which mode blocks does not cover
}

func (m *crashModel) now() []byte { return m.versions[len(m.versions)-1] }

func (m *crashModel) synced() {
	m.versions = [][]byte{m.now()}
	m.exposed = map[int64]bool{}
}

func (m *crashModel) add(b []byte) { m.versions = append(m.versions, b) }

// blockOf returns the given block of b, shorter at its end.
func blockOf(b []byte, i int64) []byte {
	lo, hi := min(i*block, int64(len(b))), min((i+1)*block, int64(len(b)))
	return b[lo:hi]
}

// check compares what is left of a file with the model, block by block: each must be one that the file has held since the last
// sync. What lies behind the size that was synced may be lost.
func (m *crashModel) check(f *File) error {
	least := int64(len(m.versions[0]))
	for _, v := range m.versions {
		least = min(least, int64(len(v)))
	}
	size := f.Size()
	if size < least {
		return fmt.Errorf("%d bytes, at least %d were there since the sync", size, least)
	}
	if len(m.versions) == 1 && size != least {
		return fmt.Errorf("%d bytes, %d were synced", size, least)
	}
	old := blocksFor(least)
	for i := int64(0); i < blocksFor(size); i++ {
		got := make([]byte, min(block, size-i*block))
		_, err := f.ReadAt(got, i*block)
		if i >= old || m.exposed[i] {
			continue // written since and never synced
		}
		if err != nil {
			return err
		}
		if !m.allows(i, got) {
			for vi, v := range m.versions {
				w := blockOf(v, i)
				k := 0
				for k < len(w) && k < len(got) && w[k] == got[k] {
					k++
				}
				fmt.Printf("  v%d len(file)=%d len(block)=%d same=%d\n", vi, len(v), len(w), k)
			}
			return fmt.Errorf("block %d of %d is neither old nor new: %d bytes", i, blocksFor(size), len(got))
		}
	}
	return nil
}

func (m *crashModel) allows(i int64, got []byte) bool {
	for _, v := range m.versions {
		if bytes.Equal(got, blockOf(v, i)) {
			return true
		}
	}
	return false
}

// crashStep does something at random to a file and tells the model before what it will hold.
func crashStep(rnd *rand.Rand, f *File, m *crashModel, safety CrashSafety) error {
	now := m.now()
	size := int64(len(now))
	write := func(off, n int64) error {
		p := pattern(rnd.Uint64(), n)
		next := grown(bytes.Clone(now), off+n)
		copy(next[off:], p)
		m.add(next)
		if safety == SafeBlocks {
			for b := blocksFor(off); b < min((off+n)/block, size/block); b++ {
				m.exposed[b] = true
			}
		}
		_, err := f.WriteAt(p, off)
		return err
	}
	sync := func() error {
		err := f.Sync(rnd.IntN(2) == 0)
		if err == nil {
			m.synced()
		}
		return err
	}
	switch k := rnd.IntN(20); {
	case k < 6:
		return write(size, 1+rnd.Int64N(6000))
	case k < 9:
		off := rnd.Int64N(size + 1)
		return write(off, 1+rnd.Int64N(min(3000, max(size-off, 1))))
	case k < 10: // larger than what is recorded whole, and followed by a sync
		if err := write(rnd.Int64N(size+1), 70_000+rnd.Int64N(40_000)); err != nil {
			return err
		}
		return sync()
	case k < 11:
		return write(size+rnd.Int64N(3*block), 1+rnd.Int64N(200))
	case k < 13:
		to := rnd.Int64N(size + 1)
		if rnd.IntN(4) == 0 {
			to = to / block * block
		}
		m.add(resized(now, to))
		return f.Truncate(to)
	case k < 14:
		to := size + rnd.Int64N(3*block)
		m.add(resized(now, to))
		return f.Truncate(to)
	case k < 15 && size > 0:
		off := rnd.Int64N(size)
		n := 1 + rnd.Int64N(3*block)
		// Its two ends and the hole between them are three changes.
		first, end := blocksFor(off)*block, min(off+n, size)
		m.add(zeroed(bytes.Clone(now), first, max(0, end-first)))
		m.add(zeroed(bytes.Clone(now), off, n))
		return f.ZeroRange(off, n, true)
	default:
		return sync()
	}
}

// TestPowerCuts lets the power fail at random moments of random work on a file, and wants the rule to hold after the
// next mount: what was synced is there, and each block that was written since is the old or the new one. So it must be when
// the power fails again during that mount.
func TestPowerCuts(t *testing.T) {
	for _, safety := range []CrashSafety{SafeBlocks, SafeFull} {
		t.Run(fmt.Sprint(safety), func(t *testing.T) {
			for seed := range powerCutSeeds() {
				powerCuts(t, seed, safety)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// powerCutSeeds is how many series of cuts are tried in each mode.
func powerCutSeeds() uint64 {
	if soaking() {
		return 1500
	}
	return 40
}

func powerCuts(t *testing.T, seed uint64, safety CrashSafety) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	r := newFileRig(t)
	defer r.close()
	r.safety, r.journalSize = safety, 80<<10 // so small that it is full every now and then
	if safety == SafeFull {
		r.journalSize = 2 << 20
	}
	d := newDisk()
	m := &crashModel{versions: [][]byte{pattern(seed, rnd.Int64N(5*block))}, exposed: map[int64]bool{}}
	r.write("f", m.now())
	for round := range 4 {
		d.begin(r)
		f := r.load("f", true)
		d.cutAt = 1 + rnd.IntN(100)
		var err error
		for err == nil {
			err = crashStep(rnd, f, m, safety)
		}
		d.fail(r, loseSome(rnd))
		for rnd.IntN(3) == 0 { // it fails again during the replay
			again := d.store()
			d.cutAt = 1 + rnd.IntN(8)
			if r.tryOpen(again) == nil {
				r.close()
				break
			}
			d.fail(r, loseSome(rnd))
		}
		d.begin(r)
		f = r.load("f", true)
		if err := m.check(f); err != nil {
			t.Errorf("seed %d, round %d: %v", seed, round, err)
			return
		}
		// The next round begins with what can be read.
		left := make([]byte, f.Size())
		if n, err := f.ReadAt(left, 0); err != nil {
			left = left[:n/block*block]
			mustTruncate(t, f, int64(len(left)))
		}
		mustSync(t, f)
		f.Release()
		m.versions, m.exposed = [][]byte{left}, map[int64]bool{}
	}
}
