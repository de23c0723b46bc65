package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// behindBlocks is how long the file is that somebody changes behind the mount.
const behindBlocks = 6

// behind is what somebody does to a file of the ciphertext directory while it is mounted. other is the ciphertext of another
// file of the volume, and old an older state of the file itself.
type behind struct {
	name string
	do   func(stored, other string, old []byte) error
	// may says what else than the file as it was may be read from then on.
	may func(i int) [][]byte
}

func behinds(outside string) []behind {
	replacedBy := func(make func(path string) error) func(string, string, []byte) error {
		return func(stored, _ string, _ []byte) error {
			return errors.Join(make(stored+"x"), os.RemoveAll(stored), os.Rename(stored+"x", stored))
		}
	}
	cutTo := func(size int64) func(string, string, []byte) error {
		return func(stored, _ string, _ []byte) error { return os.Truncate(stored, size) }
	}
	const header, cipherBlock = 1024, 4136
	nothing := func(int) [][]byte { return nil }
	return []behind{
		{"another file of the volume", func(stored, other string, _ []byte) error { return os.Rename(other, stored) },
			func(i int) [][]byte { return [][]byte{blockOf(pattern(2, behindBlocks*block), i)} }},
		{"its old state in its place", func(stored, _ string, old []byte) error {
			return errors.Join(os.WriteFile(stored+"x", old, 0o644), os.Rename(stored+"x", stored))
		}, func(i int) [][]byte { return [][]byte{blockOf(pattern(3, behindBlocks*block), i)} }},
		{"foreign bytes", func(stored, _ string, _ []byte) error {
			return errors.Join(os.WriteFile(stored+"x", pattern(4, 9000), 0o644), os.Rename(stored+"x", stored))
		}, nothing},
		// Which is an empty file, as those of other programs are, in which zeros precede what is written further on.
		{"cut to nothing", cutTo(0), func(int) [][]byte { return [][]byte{make([]byte, block)} }},
		{"cut within the header", cutTo(700), nothing},
		{"cut behind the header", cutTo(header), nothing},
		{"cut by a block", cutTo(header + (behindBlocks-1)*cipherBlock), nothing},
		{"cut within a block", cutTo(header + 2*cipherBlock + 100), nothing},
		{"longer", cutTo(header + 20*cipherBlock), nothing},
		{"removed", func(stored, _ string, _ []byte) error { return os.Remove(stored) }, nothing},
		{"a directory", replacedBy(func(path string) error { return os.Mkdir(path, 0o755) }), nothing},
		{"a symbolic link that leads out", replacedBy(func(path string) error { return os.Symlink(outside, path) }), nothing},
		{"a fifo", replacedBy(func(path string) error { return unix.Mkfifo(path, 0o644) }), nothing},
	}
}

// blockOf is a block of a content, which may have none there.
func blockOf(content []byte, i int) []byte {
	return content[min(i*block, len(content)):min((i+1)*block, len(content))]
}

// TestChangedBehind replaces, cuts and removes a file behind the mount, while it is known, open, or being written. Whoever uses
// it sees what was there, or what is there now, or an error, and never anything else; nobody waits for ever, nothing outside
// is touched, other files are not concerned, and what is there can be removed.
func TestChangedBehind(t *testing.T) {
	for _, mode := range []mountMode{{"writeback", Options{}}, {"writethrough", Options{WriteThrough: true}}} {
		for _, state := range []string{"known", "open", "dirty"} {
			t.Run(mode.name+" "+state, func(t *testing.T) {
				outside := filepath.Join(openTempDir(t), "outside")
				for _, b := range behinds(outside) {
					changeBehind(t, mode.opts, state, b, outside)
				}
			})
		}
	}
}

func changeBehind(t *testing.T, o Options, state string, b behind, outside string) {
	t.Helper()
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	r := newRig(t, o)
	r.write("f", pattern(3, behindBlocks*block))
	r.write("other", pattern(2, behindBlocks*block))
	r.write("g", pattern(5, 20_000))
	r.seal()
	old, err := os.ReadFile(r.stored("f"))
	if err != nil {
		t.Fatal(err)
	}
	content, written := pattern(1, behindBlocks*block), pattern(6, block)
	r.write("f", content)
	r.remount()
	fd := -1
	if _, err := os.Stat(r.path("f")); err != nil {
		t.Fatal(err)
	}
	if state != "known" {
		if fd, err = unix.Open(r.path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
	}
	if state == "dirty" {
		if err := writeAll(fd, written, 3*block); err != nil {
			t.Fatal(err)
		}
	}
	stored, other := r.stored("f"), r.stored("other")
	if err := b.do(stored, other, old); err != nil {
		t.Fatal(err)
	}

	done := make(chan []string, 1)
	go func() { done <- r.useBehind(fd, b, content, written) }()
	select {
	case wrong := <-done:
		for _, w := range wrong {
			t.Errorf("%s, %s: %s", state, b.name, w)
		}
	case <-time.After(patience):
		t.Fatalf("%s, %s: somebody waits for ever", state, b.name)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "outside" {
		t.Errorf("%s, %s: what is outside was touched: %q, %v", state, b.name, got, err)
	}
	r.want("g", pattern(5, 20_000))
	r.write("g", pattern(6, 30_000))
	r.remount()
	r.want("g", pattern(6, 30_000))
	if err := os.RemoveAll(r.path("f")); err != nil {
		t.Errorf("%s, %s: it cannot be removed: %v", state, b.name, err)
	}
	if _, err := os.Lstat(stored); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%s, %s: it was not removed: %v", state, b.name, err)
	}
	r.unmount()
	for n, path := range descriptors(t) {
		if before[n] != path && strings.Contains(path, r.cipher) {
			t.Errorf("%s, %s: %s is still open", state, b.name, path)
		}
	}
}

// useBehind does what applications do, by the descriptor and by the name, and says what is wrong with the answers.
func (r *rig) useBehind(fd int, b behind, content, written []byte) (wrong []string) {
	look := func(how string, fd int) {
		buf := make([]byte, block)
		for i := range behindBlocks + 2 {
			n, err := unix.Pread(fd, buf, int64(i*block))
			if err == nil && n > 0 && !isOneOf(buf[:n], append(b.may(i), blockOf(content, i), written)) {
				wrong = append(wrong, fmt.Sprintf("%s: block %d reads as %d other bytes", how, i, n))
			}
		}
	}
	if fd >= 0 {
		look("by the descriptor", fd)
		_ = writeAll(fd, written, 3*block) // it may fail, as all that follows may
		_ = unix.Fsync(fd)
		_ = unix.Ftruncate(fd, 4*block)
		look("by the descriptor, later", fd)
		_ = unix.Close(fd)
	}
	path := r.path("f")
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
		if fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			look(fmt.Sprintf("opened with %d", flags), fd)
			_ = writeAll(fd, written, 3*block)
			_ = unix.Fsync(fd)
			look(fmt.Sprintf("opened with %d, later", flags), fd)
			_ = unix.Close(fd)
		}
	}
	var st unix.Stat_t
	_ = unix.Lstat(path, &st)
	_ = unix.Chmod(path, 0o640)
	_ = unix.Setxattr(path, "user.x", []byte("y"), 0)
	_ = unix.Truncate(path, 2*block)
	_ = unix.Link(path, path+"-link")
	_ = unix.Rename(path, path+"-renamed")
	_ = unix.Rename(path+"-renamed", path)
	_ = unix.Unlink(path + "-link")
	if _, err := os.ReadDir(r.dir); err != nil {
		wrong = append(wrong, fmt.Sprint("the directory cannot be listed: ", err))
	}
	return wrong
}

func isOneOf(got []byte, ones [][]byte) bool {
	for _, one := range ones {
		if len(got) <= len(one) && bytes.Equal(got, one[:len(got)]) {
			return true
		}
	}
	return false
}
