package fs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMirror has a process do random things to a file and to a copy of it in memory, like fsx: read, write, map, truncate,
// allocate, punch, zero, copy, sync, open anew, through two handles and past the cache, with remounts in between.
func TestMirror(t *testing.T) {
	for _, mode := range []Options{{}, {WriteThrough: true}} {
		for seed := range soaking(2) {
			t.Run(fmt.Sprintf("writethrough %t, seed %d", mode.WriteThrough, seed), func(t *testing.T) {
				r := newRig(t, mode)
				mirrorWithRemounts(t, r, seed, 5, 250)
			})
		}
	}
}

// mirrorWithRemounts remounts whenever the process asks for it.
func mirrorWithRemounts(t *testing.T, r *rig, seed, rounds, steps int) {
	r.write("f", nil)
	cmd := child(t.Context(), "mirror", r.path("f"), fmt.Sprint(seed), fmt.Sprint(rounds), fmt.Sprint(steps))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var failure bytes.Buffer
	cmd.Stderr = &failure
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for lines := bufio.NewScanner(out); lines.Scan(); asked++ {
		r.remount()
		if _, err := fmt.Fprintln(in, "go on"); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || asked != rounds {
		t.Fatalf("%d remounts of %d, %v: %s", asked, rounds, err, failure.Bytes())
	}
}

// mirrored is a file and what it should hold.
type mirrored struct {
	path   string
	rnd    *rand.Rand
	data   []byte
	fd     int // the handle that most is done with
	direct int // one that goes past the cache
	done   []string
}

// mirrorSize is how long the file may become, in bytes.
const mirrorSize = 1 << 20

// mirror is the process.
func mirror(path string, args []string) error {
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[i]); err != nil {
			return err
		}
	}
	m := &mirrored{path: path, rnd: rand.New(rand.NewPCG(uint64(n[0]), 2))}
	answers := bufio.NewScanner(os.Stdin)
	for range n[1] {
		if err := m.round(n[2]); err != nil {
			return fmt.Errorf("%w; after\n%q", err, m.done[max(0, len(m.done)-30):])
		}
		fmt.Println("remount")
		if !answers.Scan() {
			return io.ErrUnexpectedEOF
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, m.data) {
			return fmt.Errorf("after a remount: %w", errors.Join(err, m.differs(got, 0)))
		}
	}
	return nil
}

func (m *mirrored) round(steps int) error {
	if err := m.open(); err != nil {
		return err
	}
	for range steps {
		off, n := m.offset(), m.length()
		names := mirrorSteps()
		step := names[m.rnd.IntN(len(names))]
		m.done = append(m.done, fmt.Sprintf("%s %d+%d of %d", step.name, off, n, len(m.data)))
		if err := step.do(m, off, n); err != nil {
			return fmt.Errorf("%s: %w", m.done[len(m.done)-1], err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(m.fd, &st); err != nil || st.Size != int64(len(m.data)) {
			return fmt.Errorf("%s: size %d instead of %d, %w", m.done[len(m.done)-1], st.Size, len(m.data), err)
		}
	}
	return errors.Join(unix.Close(m.fd), unix.Close(m.direct))
}

func (m *mirrored) open() (err error) {
	if m.fd, err = unix.Open(m.path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	m.direct, err = unix.Open(m.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_DIRECT, 0)
	return err
}

// mirrorStep is something to do to [off, off+n).
type mirrorStep struct {
	name string
	do   func(m *mirrored, off, n int64) error
}

func mirrorSteps() []mirrorStep {
	const keep = unix.FALLOC_FL_KEEP_SIZE
	return []mirrorStep{
		{"read", (*mirrored).read}, {"read", (*mirrored).read}, {"write", (*mirrored).write}, {"write", (*mirrored).write},
		{"read directly", (*mirrored).readDirect}, {"write directly", (*mirrored).writeDirect},
		{"map and read", (*mirrored).mapRead}, {"map and write", (*mirrored).mapWrite}, {"map and write", (*mirrored).mapWrite},
		{"truncate", func(m *mirrored, off, _ int64) error {
			m.resize(off)
			return unix.Ftruncate(m.fd, off)
		}},
		{"punch", func(m *mirrored, off, n int64) error { return m.zero(unix.FALLOC_FL_PUNCH_HOLE|keep, off, n) }},
		{"zero", func(m *mirrored, off, n int64) error { return m.zero(unix.FALLOC_FL_ZERO_RANGE, off, n) }},
		{"zero, keeping the size", func(m *mirrored, off, n int64) error { return m.zero(unix.FALLOC_FL_ZERO_RANGE|keep, off, n) }},
		{"allocate", func(m *mirrored, off, n int64) error {
			m.resize(max(off+n, int64(len(m.data))))
			return unix.Fallocate(m.fd, 0, off, n)
		}},
		{"allocate, keeping the size", func(m *mirrored, off, n int64) error { return unix.Fallocate(m.fd, keep, off, n) }},
		{"copy", (*mirrored).copyWithin},
		{"holes", func(m *mirrored, _, _ int64) error {
			if s := mapOf(m.fd, int64(len(m.data))); s != "fits" {
				return errors.New(s)
			}
			return nil
		}},
		{"sync", func(m *mirrored, _, _ int64) error { return unix.Fsync(m.fd) }},
		{"open anew", func(m *mirrored, _, _ int64) error {
			return errors.Join(unix.Close(m.fd), unix.Close(m.direct), m.open())
		}},
	}
}

// offset is anywhere in the file or a little behind it, often at the edge of a block.
func (m *mirrored) offset() int64 {
	off := m.rnd.Int64N(min(int64(len(m.data))+3*block, mirrorSize))
	if m.rnd.IntN(2) == 0 {
		off = off/block*block + m.rnd.Int64N(3) - 1
	}
	return max(off, 0)
}

func (m *mirrored) length() int64 {
	return []int64{1, 10, block - 1, block, block + 1, 30_000, 300_000}[m.rnd.IntN(7)]
}

// resize is what ftruncate(2) does.
func (m *mirrored) resize(size int64) {
	if n := size - int64(len(m.data)); n > 0 {
		m.data = append(m.data, make([]byte, n)...)
	}
	m.data = m.data[:size:size]
}

// within cuts [off, off+n) to what the file has.
func (m *mirrored) within(off, n int64) []byte {
	size := int64(len(m.data))
	return m.data[min(off, size):min(off+n, size)]
}

// differs says where got is not what the file should hold from off on.
func (m *mirrored) differs(got []byte, off int64) error {
	want := m.within(off, int64(len(m.data)))
	if len(got) < len(want) {
		want = want[:len(got)]
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("byte %d is %#x instead of %#x", off+int64(i), got[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes at %d of %d", len(got), off, len(m.data))
}

func (m *mirrored) read(off, n int64) error {
	buf := make([]byte, n)
	return m.compare(m.fd, buf, off)
}

// aligned is memory as O_DIRECT wants it.
func aligned(n int64) []byte {
	buf := make([]byte, n+block)
	skip := (block - int(uintptr(unsafe.Pointer(&buf[0]))%block)) % block
	return buf[skip:][:n]
}

func (m *mirrored) readDirect(off, n int64) error {
	return m.compare(m.direct, aligned((n+block-1)/block*block), off/block*block)
}

func (m *mirrored) compare(fd int, buf []byte, off int64) error {
	got, err := unix.Pread(fd, buf, off)
	if err != nil {
		return err
	}
	if !bytes.Equal(buf[:got], m.within(off, int64(len(buf)))) {
		return m.differs(buf[:got], off)
	}
	return nil
}

func (m *mirrored) write(off, n int64) error {
	return m.store(m.fd, pattern(m.rnd.Uint64(), int(n)), off)
}

func (m *mirrored) writeDirect(off, n int64) error {
	buf := aligned((n + block - 1) / block * block)
	copy(buf, pattern(m.rnd.Uint64(), len(buf)))
	return m.store(m.direct, buf, off/block*block)
}

func (m *mirrored) store(fd int, p []byte, off int64) error {
	m.resize(max(int64(len(m.data)), off+int64(len(p))))
	copy(m.data[off:], p)
	n, err := unix.Pwrite(fd, p, off)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	return err
}

// mapped calls f with [off, off+n) mapped, as far as the file reaches.
func (m *mirrored) mapped(off, n int64, f func(p []byte) error) error {
	end := min(off+n, int64(len(m.data)))
	if off >= end {
		return nil
	}
	p, err := unix.Mmap(m.fd, 0, int(end), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = f(p[off:])
	if err == nil && m.rnd.IntN(4) == 0 {
		err = unix.Msync(p, unix.MS_SYNC)
	}
	return errors.Join(err, unix.Munmap(p))
}

func (m *mirrored) mapRead(off, n int64) error {
	return m.mapped(off, n, func(p []byte) error {
		if !bytes.Equal(p, m.within(off, n)) {
			return m.differs(bytes.Clone(p), off)
		}
		return nil
	})
}

func (m *mirrored) mapWrite(off, n int64) error {
	return m.mapped(off, n, func(p []byte) error {
		copy(p, pattern(m.rnd.Uint64(), len(p)))
		copy(m.data[off:], p)
		return nil
	})
}

func (m *mirrored) zero(mode uint32, off, n int64) error {
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		m.resize(max(off+n, int64(len(m.data))))
	}
	clear(m.within(off, n))
	return unix.Fallocate(m.fd, mode, off, n)
}

// copyWithin copies a part of the file to another place in it.
func (m *mirrored) copyWithin(off, n int64) error {
	to := m.offset()
	n = int64(len(m.within(off, n)))
	if n == 0 || off < to+n && to < off+n {
		return nil // copy_file_range(2) refuses what overlaps
	}
	p := bytes.Clone(m.within(off, n))
	m.resize(max(to+n, int64(len(m.data))))
	copy(m.data[to:], p)
	for from := off; n > 0; {
		done, err := unix.CopyFileRange(m.fd, &from, m.fd, &to, int(n), 0)
		if err != nil || done == 0 {
			return fmt.Errorf("%d bytes left: %w", n, err)
		}
		n -= int64(done)
	}
	return nil
}
