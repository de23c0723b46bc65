package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/envfs/envfs/crypto"
)

// leave copies the backing file as it is, as if its writer had died, with blocks that the power cut has torn.
func (r *fileRig) leave(from, to string, torn ...int64) {
	r.t.Helper()
	b, err := os.ReadFile(r.path(from))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, block := range torn {
		at := r.vol.layout.BlockOffset(block) + 600 // a sector that did not arrive
		clear(b[at:min(at+512, int64(len(b)))])
	}
	if err := os.WriteFile(r.path(to), b, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// TestTornBlocks: a block that was never synced when the power failed reads as zeros, in the file as it is left and however it is
// read; one that was there before is damage. The file is sealed again when no such block is left.
func TestTornBlocks(t *testing.T) {
	r := newFileRig(t)
	defer r.close()
	old, added := pattern(1, 3*block+100), pattern(2, 7*block)
	r.write("f", old)
	f := r.load("f", true)
	mustWrite(t, f, added, 4*block) // the last old block becomes whole, and blocks 4 to 10 are new
	r.leave("f", "left", 5, 6, 10)
	r.leave("f", "damaged", 2)
	r.leave("f", "edge", 4)      // the first block that was not there before
	r.leave("f", "straddled", 3) // the last one of which a part was
	f.Release()

	want := make([]byte, 11*block)
	copy(want, old)
	copy(want[4*block:], added)
	for _, torn := range []int64{5, 6, 10} {
		clear(want[torn*block : (torn+1)*block])
	}
	f = r.load("left", true)
	if got := readAll(t, f); !bytes.Equal(got, want) {
		t.Errorf("first difference at %d", differs(got, want))
	}
	part := make([]byte, 100)
	if n, err := f.ReadAt(part, 10*block+50); err != nil || n != 100 || !allZero(part) {
		t.Errorf("a part of a torn block: %d bytes, %v", n, err)
	}
	mustWrite(t, f, []byte("new"), 5*block+10)
	copy(want[5*block+10:], "new")
	mustSync(t, f)
	f.Release()
	if h := onDisk(t, r.path("left")); h.Flags&crypto.FlagSealed != 0 {
		t.Error("sealed with torn blocks in it, which makes damage of them")
	}

	f = r.load("left", true)
	if got := readAll(t, f); !bytes.Equal(got, want) {
		t.Errorf("opened again: first difference at %d", differs(got, want))
	}
	mustWrite(t, f, make([]byte, block), 6*block)
	mustTruncate(t, f, 10*block)
	mustSync(t, f)
	f.Release()
	if h := onDisk(t, r.path("left")); h.Flags&crypto.FlagSealed == 0 {
		t.Error("not sealed, though no torn block is left")
	}
	if got := r.content("left"); !bytes.Equal(got, want[:10*block]) {
		t.Errorf("sealed: first difference at %d", differs(got, want))
	}

	for name, want := range map[string]int64{"damaged": 2, "straddled": 3} {
		f = r.load(name, false)
		var bad *BlockDamage
		if _, err := f.ReadAt(make([]byte, 11*block), 0); !errors.As(err, &bad) || bad.Block != want {
			t.Errorf("block %d, which was there before: %v", want, err)
		}
		f.Release()
	}
	f = r.load("edge", false)
	defer f.Release()
	if got := readAll(t, f); !allZero(got[4*block:5*block]) || !bytes.Equal(got[5*block:], added[block:]) {
		t.Error("the first block that was not there before does not read as zeros")
	}
}

// TestVouchedSize: the header of an unsealed file says, from time to time, how much is durable, and never more.
func TestVouchedSize(t *testing.T) {
	r := newFileRig(t)
	defer r.close()
	f := r.create("f")
	defer f.Release()
	vouched := func() int64 {
		t.Helper()
		h := onDisk(t, r.path("f"))
		if h.Flags&crypto.FlagSealed != 0 {
			t.Fatal("sealed")
		}
		return int64(h.Size)
	}
	step := func(what string, want int64, do func()) {
		t.Helper()
		do()
		if got := vouched(); got != want {
			t.Errorf("%s: vouches for %d bytes, want %d", what, got, want)
		}
	}
	grow := func() { mustWrite(t, f, pattern(1, vouchStep), f.Size()) }
	sync := func() { mustSync(t, f) }
	step("written", 0, grow)
	step("synced: the header must not speak of what is being synced", 0, sync)
	step("grown", 0, grow)
	step("synced: it may speak of what was synced before", vouchStep, sync)
	step("cut", vouchStep-5000, func() { mustTruncate(t, f, vouchStep-5000) })
	step("grown behind the cut", vouchStep-5000, grow)
	step("synced", vouchStep-5000, sync)
	step("a little more", 2*vouchStep-5000, func() { mustWrite(t, f, pattern(2, 100), f.Size()); sync() })
	step("a sync without growth, once there is enough to say", 3*vouchStep-5000+100, func() {
		grow()
		sync()
		sync()
		if f.header.durable != 3*vouchStep-5000+100 {
			t.Errorf("%d bytes are taken for durable", f.header.durable)
		}
	})
}

// TestHollowFile: of a file that was never synced a power cut can leave its size and nothing else. It reads as zeros, can be
// written, and is none of what verify calls damage. With a byte of data it is damaged.
func TestHollowFile(t *testing.T) {
	r := newFileRig(t)
	defer r.close()
	for _, size := range []int64{0, 1, 100, block, 3*block + 7, 600 * block} {
		name := fmt.Sprint("hollow", size)
		if err := os.WriteFile(r.path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(r.path(name), r.vol.layout.CipherSize(size)); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		f := r.load(name, false)
		if got := readAll(t, f); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read %d", size, len(got))
		}
		f.Release()
		f = r.load(name, true)
		mustWrite(t, f, []byte("x"), size)
		mustSync(t, f)
		f.Release()
		if got := r.content(name); !bytes.Equal(got, append(want, 'x')) {
			t.Errorf("%d bytes: read %d after a write", size, len(got))
		}
		if h := onDisk(t, r.path(name)); h.Flags&crypto.FlagSealed == 0 {
			t.Errorf("%d bytes: not sealed", size)
		}
	}
	r.write("damaged", pattern(1, 3*block))
	r.change("damaged", func(b []byte) []byte { clear(b[:r.vol.layout.HeaderSize()]); return b })
	if f, err := r.tryLoad("damaged", false); !errors.Is(err, crypto.ErrNoSlot) {
		t.Errorf("a header of zeros before data: %v", err)
		if err == nil {
			f.Release()
		}
	}
}

// TestNobodyVouchesForTorn: a file with torn blocks is durable, but not in one piece; and a sync says nothing of a file that was
// cut while it was under way.
func TestNobodyVouchesForTorn(t *testing.T) {
	r := newFileRig(t)
	defer r.close()
	f := r.create("f")
	mustWrite(t, f, pattern(1, 3*block), 0)
	r.leave("f", "left", 1)
	before := f.reach()
	mustTruncate(t, f, 100)
	mustWrite(t, f, pattern(2, 3*block), 100)
	f.noteDurable(before)
	if d := f.header.durable; d > 100 {
		t.Errorf("%d bytes are taken for durable, of which those from 100 on were written since", d)
	}
	f.Release()
	f = r.load("left", true)
	defer f.Release()
	for range 3 {
		mustWrite(t, f, pattern(3, vouchStep), f.Size())
		mustSync(t, f)
	}
	if h := onDisk(t, r.path("left")); h.Size != 0 {
		t.Errorf("the header vouches for %d bytes, a torn block among them", h.Size)
	}
}
