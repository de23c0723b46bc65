package fs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLimits is what differs from the file system below, and must say so.
func TestLimits(t *testing.T) {
	r := newRig(t, Options{})
	r.write("f", pattern(1, 10_000))
	f, err := os.OpenFile(r.path("f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	for _, c := range []struct {
		what string
		want error
		call func() error
	}{
		{"a target of 3031 bytes", nil, func() error { return os.Symlink(strings.Repeat("t", 3031), r.path("l1")) }},
		{"a target of 3032 bytes", unix.ENAMETOOLONG, func() error { return os.Symlink(strings.Repeat("t", 3032), r.path("l2")) }},
		{"a reserved attribute", unix.EPERM, func() error { return unix.Setxattr(r.path("f"), "user.envfs.x", []byte("x"), 0) }},
		{"a reserved attribute of root", unix.EPERM, func() error { return unix.Setxattr(r.path("f"), "trusted.envfs.x", []byte("x"), 0) }},
		{"reading a reserved attribute", unix.ENODATA, func() error { _, err := unix.Getxattr(r.path("f"), "user.envfs.x", nil); return err }},
		{"collapsing a range", unix.EOPNOTSUPP, func() error { return unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, block) }},
		{"inserting a range", unix.EOPNOTSUPP, func() error { return unix.Fallocate(fd, unix.FALLOC_FL_INSERT_RANGE, 0, block) }},
		{"cloning", unix.EOPNOTSUPP, func() error { return unix.IoctlFileClone(fd, fd) }},
		{"the largest size", unix.EFBIG, func() error { return unix.Ftruncate(fd, 1<<63-1) }},
		{"allocating more than a file holds", unix.EFBIG, func() error { return unix.Fallocate(fd, 0, 1<<62, 1<<61) }},
	} {
		if err := c.call(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	r.want("f", pattern(1, 10_000))
	if names, err := os.ReadDir(r.dir); err != nil || len(names) != 2 {
		t.Errorf("%d entries, %v", len(names), err)
	}
}

// TestReadOnly: nothing can be changed, neither above nor below.
func TestReadOnly(t *testing.T) {
	r := newRig(t, Options{})
	r.write("f", pattern(1, 10_000))
	r.unmount()
	r.opts.ReadOnly = true
	r.mount()
	r.want("f", pattern(1, 10_000))
	before, err := os.ReadFile(r.stored("f"))
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"write":    os.WriteFile(r.path("f"), nil, 0o644),
		"create":   os.WriteFile(r.path("g"), nil, 0o644),
		"mkdir":    os.Mkdir(r.path("d"), 0o755),
		"unlink":   os.Remove(r.path("f")),
		"rename":   os.Rename(r.path("f"), r.path("g")),
		"chmod":    os.Chmod(r.path("f"), 0o600),
		"truncate": os.Truncate(r.path("f"), 0),
		"setxattr": unix.Setxattr(r.path("f"), "user.x", []byte("y"), 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if after, err := os.ReadFile(r.stored("f")); err != nil || string(after) != string(before) {
		t.Errorf("the ciphertext changed: %v", err)
	}
}
