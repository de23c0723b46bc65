package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMirror does random things to a file and to a slice in memory, with remounts in between, and compares.
func TestMirror(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("writethrough %t, seed %d", mode.WriteThrough, seed), func(t *testing.T) {
				r := newRig(t, mode)
				m := &mirror{r: r, rnd: rand.New(rand.NewPCG(seed, 2))}
				r.write("f", nil)
				for range 6 {
					m.round(t, 120)
					r.remount()
					r.want("f", m.data)
				}
			})
		}
	}
}

// mirror is a file and what it should hold.
type mirror struct {
	r    *rig
	rnd  *rand.Rand
	data []byte
}

// offset is anywhere in the file or a little behind it, often at the edge of a block.
func (m *mirror) offset() int64 {
	off := m.rnd.Int64N(int64(len(m.data)) + 3*block)
	if m.rnd.IntN(2) == 0 {
		off = off/block*block + m.rnd.Int64N(3) - 1
	}
	return max(off, 0)
}

func (m *mirror) length() int {
	return []int{1, 10, block - 1, block, block + 1, 30_000, 300_000}[m.rnd.IntN(7)]
}

// grow makes the mirror reach to size.
func (m *mirror) grow(size int64) {
	if n := size - int64(len(m.data)); n > 0 {
		m.data = append(m.data, make([]byte, n)...)
	}
}

func (m *mirror) round(t *testing.T, steps int) {
	t.Helper()
	fd, err := unix.Open(m.r.path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Close(fd) }()
	for range steps {
		op := m.rnd.IntN(10)
		if err := m.step(fd, op); err != nil {
			t.Fatalf("operation %d: %v", op, err)
		}
		if len(m.data) > 1<<20 {
			m.data = m.data[:1000]
			if err := unix.Ftruncate(fd, 1000); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (m *mirror) step(fd, op int) error {
	off, n := m.offset(), int64(m.length())
	switch op {
	case 0, 1, 2, 3:
		p := pattern(m.rnd.Uint64(), int(n))
		m.grow(off + n)
		copy(m.data[off:], p)
		_, err := unix.Pwrite(fd, p, off)
		return err
	case 4, 5, 6:
		return m.compare(fd, off, n)
	case 7:
		m.grow(off)
		m.data = m.data[:off]
		return unix.Ftruncate(fd, off)
	case 8:
		mode := []uint32{unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 0}[m.rnd.IntN(3)]
		if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
			m.grow(off + n)
		}
		if mode != 0 && off < int64(len(m.data)) {
			clear(m.data[off:min(off+n, int64(len(m.data)))])
		}
		return unix.Fallocate(fd, mode, off, n)
	}
	return unix.Fsync(fd)
}

func (m *mirror) compare(fd int, off, n int64) error {
	buf := make([]byte, n)
	got, err := unix.Pread(fd, buf, off)
	if err != nil {
		return err
	}
	want := m.data[min(off, int64(len(m.data))):min(off+n, int64(len(m.data)))]
	if !bytes.Equal(buf[:got], want) {
		return fmt.Errorf("%d bytes at %d of %d: %s, want %s", n, off, len(m.data), digest(buf[:got]), digest(want))
	}
	return nil
}

// TestManyGoroutinesOneFile has 8 goroutines write their own parts of one file, over block edges, and read those of all.
func TestManyGoroutinesOneFile(t *testing.T) {
	const workers, part, rounds = 8, 10_007, 40
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		r := newRig(t, mode)
		r.write("f", make([]byte, workers*part))
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() { workOnPart(t, r.path("f"), w, part, rounds, workers) })
		}
		wg.Wait()
		want := []byte{}
		for w := range workers {
			want = append(want, bytes.Repeat([]byte{byte(rounds), byte(w)}, part)[:part]...)
		}
		r.want("f", want)
		r.remount()
		r.want("f", want)
		r.unmount()
	}
}

// workOnPart overwrites one part again and again; what it reads there must be what it wrote.
func workOnPart(t *testing.T, path string, w, part, rounds, workers int) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	buf := make([]byte, part)
	for i := 1; i <= rounds; i++ {
		p := bytes.Repeat([]byte{byte(i), byte(w)}, part)[:part]
		if _, err := f.WriteAt(p, int64(w*part)); err != nil {
			t.Error(err)
			return
		}
		if _, err := f.ReadAt(buf, int64(w*part)); err != nil || !bytes.Equal(buf, p) {
			t.Errorf("worker %d, round %d: another content came back (%v)", w, i, err)
			return
		}
		if _, err := f.ReadAt(buf, int64((w+i)%workers*part)); err != nil {
			t.Error(err)
			return
		}
		if i%10 == 0 {
			if err := f.Sync(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestManyProcessesOneDirectory has 16 processes create, rename and remove in one directory.
func TestManyProcessesOneDirectory(t *testing.T) {
	r := newRig(t, Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			if out, err := child(t.Context(), "churn", r.dir, fmt.Sprint(i)).CombinedOutput(); err != nil {
				t.Errorf("process %d: %v: %s", i, err, out)
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 16*5+1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	r.remount()
	for i := range 16 {
		for j := range 5 {
			r.want(fmt.Sprintf("kept-%d-%d", i, j), fmt.Appendf(nil, "process %d, file %d", i, j*10))
		}
	}
	if left := len(storedNames(t, r.cipher)); left != 16*5+2 {
		t.Errorf("%d stored names", left)
	}
}

// churn makes 50 files, shares a name with the other processes, and keeps every tenth file.
func churn(dir string, args []string) error {
	id := args[0]
	for i := range 50 {
		name := fmt.Sprintf("%s/%s-%d-%s", dir, id, i, longName('x', 100+i*2))
		if err := os.WriteFile(name, fmt.Appendf(nil, "process %s, file %d", id, i), 0o644); err != nil {
			return err
		}
		shared := dir + "/shared"
		if err := os.WriteFile(name+".tmp", []byte(id), 0o644); err != nil {
			return err
		}
		if err := os.Rename(name+".tmp", shared); err != nil {
			return err
		}
		if _, err := os.ReadDir(dir); err != nil {
			return err
		}
		if i%10 == 0 {
			if err := os.Rename(name, fmt.Sprintf("%s/kept-%s-%d", dir, id, i/10)); err != nil {
				return err
			}
			continue
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}
