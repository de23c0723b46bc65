package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// entry is all of a directory entry that a copy must keep.
type entry struct {
	Mode    uint32 `json:"mode"` // with the type
	UID     uint32 `json:"-"`
	GID     uint32 `json:"-"`
	Size    int64  `json:"size"` // 0 of directories
	Mtime   string `json:"mtime"`
	Content string `json:"content,omitempty"` // hash of a file, target of a link
	Same    string `json:"same,omitempty"`    // the first path of the same inode
	Xattrs  string `json:"xattrs,omitempty"`
}

// snapshot reads a tree.
func snapshot(t *testing.T, root string) map[string]entry {
	t.Helper()
	tree := map[string]entry{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		e := entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano), Xattrs: xattrsOf(t, path)}
		if !d.IsDir() {
			e.Size = st.Size
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
			e.Same = first[st.Ino]
		}
		e.Content, err = contentOf(path, d.Type())
		tree[rel] = e
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func contentOf(path string, kind fs.FileMode) (string, error) {
	switch {
	case kind.IsRegular():
		content, err := os.ReadFile(path)
		sum := sha256.Sum256(content)
		return hex.EncodeToString(sum[:]), err
	case kind == fs.ModeSymlink:
		return os.Readlink(path)
	}
	return "", nil
}

func xattrsOf(t *testing.T, path string) string {
	t.Helper()
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		t.Fatalf("%s: listxattr: %v", path, err)
	}
	var text strings.Builder
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("%s: getxattr %s: %v", path, name, err)
		}
		fmt.Fprintf(&text, "%s=%x ", name, value[:n])
	}
	return text.String()
}

// sameTree compares two trees and names the differences, as far as anybody will read them.
func sameTree(t *testing.T, want, got map[string]entry) {
	t.Helper()
	var differences []string
	for path, w := range want {
		g, ok := got[path]
		if !ok {
			differences = append(differences, fmt.Sprintf("%q is missing", path))
		} else if g != w {
			differences = append(differences, fmt.Sprintf("%q:\n got %v\nwant %v", path, g, w))
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			differences = append(differences, fmt.Sprintf("%q should not be there", path))
		}
	}
	slices.Sort(differences)
	for _, difference := range differences[:min(len(differences), 8)] {
		t.Error(difference)
	}
	if len(differences) > 8 {
		t.Errorf("… and %d more differences", len(differences)-8)
	}
}

// unchanged checks that what a test does leaves a tree as it is, to the last byte.
func unchanged(t *testing.T, root string, do func()) {
	t.Helper()
	before := snapshot(t, root)
	do()
	sameTree(t, before, snapshot(t, root))
}

// noise is content that does not compress and is the same each time.
func noise(size int, seed uint64) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = source.Read(data) // never fails
	return data
}

// makeTree makes a tree with one of everything that a copy can get wrong.
func makeTree(t *testing.T, root string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	check(os.MkdirAll(at("deep/er/still"), 0o755))
	check(os.Mkdir(at("empty"), 0o700))
	for i, size := range []int{0, 1, 4095, 4096, 4097, 8192, 100_000, 1 << 20} {
		check(os.WriteFile(at(fmt.Sprintf("file-%d", size)), noise(size, uint64(i)), 0o644))
	}
	check(os.WriteFile(at("deep/er/still/"+strings.Repeat("n", 200)), []byte("long name"), 0o600))
	check(os.WriteFile(at("deep/er/"+strings.Repeat("ü", 127)+"x"), []byte("longest name"), 0o600))
	check(os.WriteFile(at("deep/two\nlines and ünï ★"), []byte("odd name"), 0o444))
	check(os.WriteFile(at("run"), []byte("#!/bin/sh\necho it runs\n"), 0o755))
	check(os.Link(at("file-4097"), at("deep/hardlink")))
	check(os.Symlink("../file-4097", at("deep/symlink")))
	check(os.Symlink("/nowhere/at all", at("dangling")))
	check(unix.Mkfifo(at("fifo"), 0o640))
	sparse, err := os.Create(at("sparse"))
	check(err)
	check(sparse.Truncate(8 << 20))
	_, err = sparse.WriteAt(noise(5000, 9), 4<<20)
	check(err)
	check(sparse.Close())
	check(unix.Setxattr(at("file-1"), "user.comment", []byte("a value"), 0))
	check(unix.Setxattr(at("deep"), "user.empty", nil, 0))
	check(os.Chmod(at("deep"), fs.ModeSetgid|0o775))
	check(os.Chmod(at("empty"), fs.ModeSticky|0o777))
	check(unix.Setxattr(at("file-4096"), "system.posix_acl_access", acl(), 0))
	check(unix.Setxattr(at("deep/er"), "system.posix_acl_default", acl(), 0))
	if os.Geteuid() == 0 {
		check(os.Lchown(at("file-8192"), 1234, 4321))
		check(os.Lchown(at("dangling"), 1234, 4321))
	}
	check(setOldTimes(root))
}

// setOldTimes gives each entry of a tree a time of its own, to the nanosecond.
func setOldTimes(root string) error {
	var paths []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	for i, path := range paths {
		old := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, i, 789_012_345+i, time.UTC).UnixNano())
		err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return err
}

// acl is a POSIX ACL as its attribute holds it: version 2, then tag, permissions and ID of each entry. User 1234 may read.
func acl() []byte {
	const undefined = "\xff\xff\xff\xff"
	return []byte("\x02\x00\x00\x00" + // version
		"\x01\x00\x06\x00" + undefined + // owner rw-
		"\x02\x00\x04\x00\xd2\x04\x00\x00" + // user 1234 r--
		"\x04\x00\x04\x00" + undefined + // group r--
		"\x10\x00\x04\x00" + undefined + // mask r--
		"\x20\x00\x00\x00" + undefined) // others ---
}
