package fs

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

// damage changes the ciphertext of a file while the volume is not mounted.
func (r *rig) damage(name string, change func(b []byte) []byte) {
	r.t.Helper()
	stored := r.stored(name)
	r.unmount()
	b, err := os.ReadFile(stored)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(stored, change(b), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.mount()
}

// TestFlippedByte: one bad block costs one block.
func TestFlippedByte(t *testing.T) {
	const blocks = 600 // more than the kernel reads at once
	want := pattern(1, blocks*block-100)
	for _, bad := range []int{0, 1, 255, 256, 300, blocks - 1} {
		for _, at := range []int{0, crypto.NonceSize, 2000, -1, -2} { // nonce, ciphertext, tag, all zeroed
			if at != 2000 && bad != 300 {
				continue
			}
			r := newRig(t, Options{})
			r.write("f", want)
			layout := crypto.Layout{SlotSize: 512}
			r.damage("f", func(b []byte) []byte {
				from, to := layout.BlockOffset(int64(bad)), min(layout.BlockOffset(int64(bad+1)), int64(len(b)))
				switch at {
				case -1:
					b[to-1] ^= 0x80
				case -2:
					clear(b[from:to])
				default:
					b[from+int64(at)] ^= 0x80
				}
				return b
			})
			checkBadBlock(t, r, want, bad)
			if n := r.log.count("cannot serve a file"); n != 1 {
				t.Errorf("block %d: the fault was logged %d times", bad, n)
			}
			if err := os.Remove(r.path("f")); err != nil {
				t.Errorf("unlink: %v", err)
			}
			r.unmount()
		}
	}
}

// checkBadBlock reads each block by itself and the whole in large pieces.
func checkBadBlock(t *testing.T, r *rig, want []byte, bad int) {
	t.Helper()
	fd, err := unix.Open(r.path("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer unix.Close(fd)
	for round := range 2 {
		for i := 0; i*block < len(want); i++ {
			part := want[i*block : min((i+1)*block, len(want))]
			buf := make([]byte, len(part))
			n, err := unix.Pread(fd, buf, int64(i*block))
			switch {
			case i == bad && !errors.Is(err, unix.EIO):
				t.Errorf("round %d, bad block %d: read %d bytes, %v", round, i, n, err)
			case i != bad && (err != nil || !bytes.Equal(buf, part)):
				t.Fatalf("round %d, block %d beside bad block %d: %d bytes, %v", round, i, bad, n, err)
			}
		}
		buf := make([]byte, len(want))
		n, err := unix.Pread(fd, buf, 0)
		if err == nil && n > bad*block || n > 0 && !bytes.Equal(buf[:n], want[:n]) {
			t.Errorf("read over bad block %d: %d bytes, %v", bad, n, err)
		}
	}
	if _, err := os.ReadFile(r.path("f")); !errors.Is(err, unix.EIO) {
		t.Errorf("a program that reads the whole file sees %v", err)
	}
}

// TestDamagedHeader: such a file cannot be opened, and all that needs no key works.
func TestDamagedHeader(t *testing.T) {
	const header = 1024
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
	}{
		{"cut short", func(b []byte) []byte { return b[:700] }},
		{"cut to a byte", func(b []byte) []byte { return b[:1] }},
		{"zeroed", func(b []byte) []byte { clear(b[:header]); return b }},
		{"magic", func(b []byte) []byte { b[0] ^= 1; b[512] ^= 1; return b }},
		{"wrapped key", func(b []byte) []byte { b[60] ^= 1; b[512+60] ^= 1; return b }},
		{"size", func(b []byte) []byte { return b[:len(b)-5000] }},
		{"longer", func(b []byte) []byte { return append(b, make([]byte, 4136)...) }},
		{"garbage", func(b []byte) []byte { return pattern(9, len(b)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{})
			r.write("f", pattern(1, 20_000))
			r.write("g", pattern(2, 20_000))
			r.damage("f", c.change)
			refused(t, r, "f", unix.EIO)
			r.want("g", pattern(2, 20_000))
		})
	}
}

// refused checks that a file cannot be opened and that all else works on it.
func refused(t *testing.T, r *rig, name string, want unix.Errno) {
	t.Helper()
	before, err := os.ReadFile(r.stored(name))
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC} {
		f, err := os.OpenFile(r.path(name), flags, 0)
		if !errors.Is(err, want) {
			t.Errorf("open %#x: %v", flags, err)
		}
		if err == nil {
			f.Close()
		}
	}
	if err := os.Truncate(r.path(name), 5); !errors.Is(err, want) {
		t.Errorf("truncate: %v", err)
	}
	if after, err := os.ReadFile(r.stored(name)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the ciphertext was changed on the way to an error (%v)", err)
	}
	withoutKey(t, r, name)
}

// withoutKey does what needs no key, and removes the file.
func withoutKey(t *testing.T, r *rig, name string) {
	t.Helper()
	p := r.path(name)
	try := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := os.Lstat(p)
	try("stat", err)
	entries, err := os.ReadDir(r.dir)
	try("readdir", err)
	found := false
	for _, e := range entries {
		found = found || e.Name() == name
	}
	if !found {
		t.Error("not listed")
	}
	try("chmod", os.Chmod(p, 0o640))
	try("setxattr", unix.Setxattr(p, "user.x", []byte("y"), 0))
	try("link", os.Link(p, p+"-link"))
	try("rename", os.Rename(p, p+"-renamed"))
	try("mkdir", os.Mkdir(p, 0o755))
	try("rename into a directory", os.Rename(p+"-renamed", p+"/inside"))
	try("unlink", os.Remove(p+"/inside"))
	try("unlink of a hard link", os.Remove(p+"-link"))
	try("rmdir", os.Remove(p))
}

// TestSwappedHeaders puts the header of another file, and of another volume, before the data.
func TestSwappedHeaders(t *testing.T) {
	const header = 1024
	other := newRig(t, Options{}, func(r *rig) {})
	other.write("f", pattern(3, 20_000))
	foreign := other.stored("f")
	other.unmount()
	otherBytes, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("another volume", func(t *testing.T) {
		r := newRig(t, Options{}, func(r *rig) { r.kr = other.kr }) // so that the key can be had
		r.write("f", pattern(1, 20_000))
		r.damage("f", func([]byte) []byte { return otherBytes })
		refused(t, r, "f", unix.EIO)
	})
	t.Run("another key service", func(t *testing.T) {
		r := newRig(t, Options{})
		r.write("f", pattern(1, 20_000))
		r.damage("f", func([]byte) []byte { return otherBytes })
		refused(t, r, "f", unix.EIO)
	})
	t.Run("another file", func(t *testing.T) {
		r := newRig(t, Options{})
		r.write("f", pattern(1, 20_000))
		r.write("g", pattern(2, 20_000))
		r.remount() // which seals them: behind a header that is not sealed, blocks may be torn
		g, err := os.ReadFile(r.stored("g"))
		if err != nil {
			t.Fatal(err)
		}
		r.damage("f", func(b []byte) []byte { return append(g[:header:header], b[header:]...) })
		// The header is whole and of this volume, so the file opens; no block of it is what the header promises.
		if _, err := os.ReadFile(r.path("f")); !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v", err)
		}
		withoutKey(t, r, "f")
		r.want("g", pattern(2, 20_000))
	})
	t.Run("another file's content at the same place", func(t *testing.T) {
		r := newRig(t, Options{})
		r.write("f", pattern(1, 20_000))
		r.damage("f", func(b []byte) []byte { // blocks 1 and 2 change places
			const one, two = header + 4136, header + 2*4136
			tmp := bytes.Clone(b[one:two])
			copy(b[one:], b[two:two+4136])
			copy(b[two:], tmp)
			return b
		})
		checkReadError(t, r, "f", []int{1, 2})
	})
}

// checkReadError expects EIO for some blocks and data for the others.
func checkReadError(t *testing.T, r *rig, name string, bad []int) {
	t.Helper()
	fd, err := unix.Open(r.path(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for i := range 5 {
		_, err := unix.Pread(fd, make([]byte, 100), int64(i*block))
		isBad := i == bad[0] || i == bad[1]
		if isBad != errors.Is(err, unix.EIO) {
			t.Errorf("block %d: %v", i, err)
		}
	}
}
