package volume

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

const block = crypto.BlockSize

// edges are sizes around everything that has an edge.
var edges = []int64{0, 1, 15, 16, 40, 100, block - 1, block, block + 1, 2*block - 1, 2 * block, 2*block + 1, 7*block + 123,
	(chunkBlocks - 1) * block, chunkBlocks*block - 1, chunkBlocks * block, chunkBlocks*block + 1, 3*chunkBlocks*block + 17}

func pattern(seed uint64, n int64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

func TestFileRoundTripAtEdges(t *testing.T) {
	r := newFileRig(t)
	for _, size := range edges {
		name := fmt.Sprint("f", size)
		want := pattern(uint64(size), size)
		r.write(name, want)
		if st, err := os.Stat(r.path(name)); err != nil || size > 0 && st.Size() != r.vol.layout.CipherSize(size) {
			t.Errorf("%d bytes: backing size %d, %v", size, st.Size(), err)
		}
		f := r.load(name, false)
		if got := readAll(t, f); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: read back %d other bytes", size, len(got))
		}
		f.Release()
	}
}

// TestFileMatchesMirror drives a file and a plain byte slice through the same random operations, with the file closed,
// sealed and opened anew in between.
func TestFileMatchesMirror(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newFileRig(t)
			f := r.create("f")
			var mirror []byte
			for step := range 150 {
				mirror = mutate(t, rnd, f, mirror, step)
				checkRange(t, rnd, f, mirror)
				if rnd.IntN(20) == 0 {
					f.Release()
					r.reopen(&backing.Store{})
					f = r.load("f", true)
					if got := readAll(t, f); !bytes.Equal(got, mirror) {
						t.Fatalf("step %d: the file differs after it was opened again", step)
					}
				}
			}
			f.Release()
		})
	}
}

// mutate makes one random change to both.
func mutate(t *testing.T, rnd *rand.Rand, f *File, mirror []byte, step int) []byte {
	t.Helper()
	off, n := randomRange(rnd)
	var err error
	op := rnd.IntN(10)
	switch op {
	case 0, 1:
		err = f.Truncate(off)
		mirror = resized(mirror, off)
	case 2:
		err = f.ZeroRange(off, n, true)
		mirror = zeroed(mirror, off, n)
	case 3:
		err = f.ZeroRange(off, n, false)
		mirror = zeroed(resized(mirror, max(int64(len(mirror)), off+n)), off, n)
	case 4:
		err = f.Allocate(off, n, rnd.IntN(2) == 0)
		if f.Size() > int64(len(mirror)) {
			mirror = resized(mirror, off+n)
		}
	default:
		data := pattern(uint64(step), n)
		_, err = f.WriteAt(data, off)
		mirror = resized(mirror, max(int64(len(mirror)), off+n))
		copy(mirror[off:], data)
	}
	if err != nil {
		t.Fatalf("step %d: operation %d at %d+%d: %v", step, op, off, n, err)
	}
	if f.Size() != int64(len(mirror)) {
		t.Fatalf("step %d: operation %d at %d+%d: size %d, want %d", step, op, off, n, f.Size(), len(mirror))
	}
	return mirror
}

func randomRange(rnd *rand.Rand) (off, n int64) {
	off, n = rnd.Int64N(20*block), rnd.Int64N(6*block)+1
	if rnd.IntN(3) == 0 {
		off -= off % block
	}
	if rnd.IntN(3) == 0 {
		n = (n/block + 1) * block
	}
	return off, n
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b[:len(b):len(b)], make([]byte, size-int64(len(b)))...)
}

func zeroed(b []byte, off, n int64) []byte {
	if off < int64(len(b)) {
		clear(b[off:min(int64(len(b)), off+n)])
	}
	return b
}

func checkRange(t *testing.T, rnd *rand.Rand, f *File, mirror []byte) {
	t.Helper()
	off, n := randomRange(rnd)
	buf := make([]byte, n)
	got, err := f.ReadAt(buf, off)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	if off < int64(len(mirror)) {
		want = mirror[off:min(int64(len(mirror)), off+n)]
	}
	if !bytes.Equal(buf[:got], want) {
		t.Fatalf("read at %d+%d differs from the mirror", off, n)
	}
}

// TestFileConcurrentGrowth has many writers fill a file out of order, as the kernel does when it writes back.
func TestFileConcurrentGrowth(t *testing.T) {
	r := newFileRig(t)
	const pieces, size = 64, 3*block + 100
	want := pattern(9, pieces*size)
	f := r.create("f")
	var wg sync.WaitGroup
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(pieces) {
		wg.Go(func() {
			if _, err := f.WriteAt(want[i*size:(i+1)*size], int64(i*size)); err != nil {
				t.Error(err)
			}
			buf := make([]byte, size)
			if n, err := f.ReadAt(buf, int64(i*size)); err != nil || !bytes.Equal(buf[:n], want[i*size:(i+1)*size]) {
				t.Errorf("piece %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	f.Release()
	r.reopen(&backing.Store{})
	f = r.load("f", false)
	defer f.Release()
	if !bytes.Equal(readAll(t, f), want) {
		t.Error("the file differs")
	}
	if f.extents.holesUnknown {
		t.Error("a file whose gaps were all filled is sealed as sparse, so that zeroed blocks would go unnoticed")
	}
}

// TestFileOneByteChangesOneBlock shows that a backup has to carry only what changed.
func TestFileOneByteChangesOneBlock(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, 100*block+5))
	before, err := os.ReadFile(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	f := r.load("f", true)
	if _, err := f.WriteAt([]byte{0}, 50*block+7); err != nil {
		t.Fatal(err)
	}
	f.Release()
	r.reopen(&backing.Store{})
	after, err := os.ReadFile(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	header := int(r.vol.layout.HeaderSize())
	for i := header; i < len(before); i++ {
		if before[i] != after[i] && (i-header)/crypto.CipherBlockSize != 50 {
			t.Fatalf("byte %d of the ciphertext changed, outside of block 50", i)
		}
	}
	if len(before) != len(after) || bytes.Equal(before, after) {
		t.Error("the ciphertext did not change as expected")
	}
}

// TestFileCutAnywhere: a sealed file that was cut at any byte is refused, but for one cut to nothing. What else can be done to
// ciphertext, and what a reader sees of it, is the subject of TestTampering in package fs.
func TestFileCutAnywhere(t *testing.T) {
	r := newFileRig(t)
	r.write("f", pattern(1, block+10))
	r.reopen(&backing.Store{})
	for size := r.vol.layout.CipherSize(block+10) - 1; size > 0; size-- {
		if err := os.Truncate(r.path("f"), size); err != nil {
			t.Fatal(err)
		}
		if f, err := r.tryLoad("f", true); !IsDamage(err) {
			t.Errorf("cut to %d bytes: %v", size, err)
			if err == nil {
				f.Release()
			}
		}
		if st, err := os.Stat(r.path("f")); err != nil || st.Size() != size {
			t.Fatalf("a damaged file was written to: %v", err)
		}
	}
}

func TestFileReadOnlyRefusesWrites(t *testing.T) {
	r := newFileRig(t)
	r.write("f", []byte("content"))
	f := r.load("f", false)
	defer f.Release()
	_, werr := f.WriteAt([]byte("x"), 0)
	for what, err := range map[string]error{
		"write": werr, "truncate": f.Truncate(1), "allocate": f.Allocate(0, 1, false), "punch": f.ZeroRange(0, 1, true),
	} {
		if !errors.Is(err, unix.EBADF) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
