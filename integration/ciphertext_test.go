package integration

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	slotSize        = 512
	headerSize      = 2 * slotSize
	cipherBlockSize = 4096 + 40
)

// ciphertextOf finds the ciphertext of a path in the mount.
func (r *rig) ciphertextOf(path string) string {
	r.t.Helper()
	return r.info(r.path(path)).Entry.Ciphertext
}

// TestCiphertextHides looks for what was written: neither content nor a name, a target or an attribute is found below.
func TestCiphertextHides(t *testing.T) {
	need(t, "setfattr")
	r := mounted(t)
	r.sh(`mkdir -p "Secret Directory/inner"; cd "Secret Directory"
		for i in $(seq 5000); do echo "The Secret Content, line $i"; done > "Secret Name.txt"
		printf 'Secret Tail' > "inner/$(printf 'Secret%.0s' $(seq 40))"; : > "Secret Empty"
		ln -s "Secret Target" "Secret Link"; mkfifo "Secret Fifo"; setfattr -n user.comment -v "Secret Value" "Secret Name.txt"
		truncate -s 100000 "Secret Sparse"; printf 'Secret End' >> "Secret Sparse"`)
	for _, when := range []string{"while mounted", "unmounted"} {
		if when == "unmounted" {
			r.umount()
		} else {
			r.sh(`sync -f .`)
		}
		entries := 0
		err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			entries++
			text := path + xattrsOf(t, path)
			if content, err := contentBytes(path, d); err == nil {
				text += content
			} else {
				return err
			}
			for _, word := range []string{"Secret", "Content", "inner", "536563726574" /* Secret, in hex */, "U2VjcmV0" /* in base64 */} {
				if strings.Contains(text, word) {
					t.Errorf("%s: %q is found in %s", when, word, path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if entries < 11 {
			t.Errorf("only %d entries looked at", entries)
		}
	}
}

func contentBytes(path string, d fs.DirEntry) (string, error) {
	switch {
	case d.Type().IsRegular():
		content, err := os.ReadFile(path)
		return string(content), err
	case d.Type() == fs.ModeSymlink:
		return os.Readlink(path)
	}
	return "", nil
}

// TestOneByte changes one byte of 100 MB: on disk one block changes, and the header.
func TestOneByte(t *testing.T) {
	r := mounted(t)
	r.sh(`head -c 100000000 /dev/urandom > big`)
	r.remount()
	cipher := r.ciphertextOf("big")
	before, err := os.ReadFile(cipher)
	if err != nil {
		t.Fatal(err)
	}
	const at = 55_555_555
	r.sh(`printf x | dd of=big bs=1 seek=55555555 conv=notrunc status=none`)
	r.umount()
	after, err := os.ReadFile(cipher)
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(before) {
		t.Fatalf("%d bytes, before: %d", len(after), len(before))
	}
	if bytes.Equal(before[:headerSize], after[:headerSize]) {
		t.Error("the header is the same")
	}
	var changed []int
	for i, offset := 0, headerSize; offset < len(after); i, offset = i+1, offset+cipherBlockSize {
		end := min(offset+cipherBlockSize, len(after))
		if !bytes.Equal(before[offset:end], after[offset:end]) {
			changed = append(changed, i)
		}
	}
	if !slices.Equal(changed, []int{at / 4096}) {
		t.Errorf("blocks %v have changed, want %d alone", changed, at/4096)
	}
}

// TestBackup copies the ciphertext directory of a mount that is in nobody's use, and opens the copy.
func TestBackup(t *testing.T) {
	need(t, "rsync")
	r := newRig(t)
	r.mount()
	makeTree(t, r.path("tree"))
	r.sh(`seq 100000 > numbers; sync -f .; rsync -aHAXS "$DATA/" "$BASE/backup/"`)
	want := snapshot(t, r.mnt)
	r.settle("numbers")

	check := func(when string) {
		t.Helper()
		r.mkdir(r.below("restored"))
		r.envfs(append(append([]string{"mount", "--log-file", r.log}, r.mountFlags...), r.below("backup"), r.below("restored"))...).ok()
		got := snapshot(t, r.below("restored"))
		if len(got) < 20 {
			t.Errorf("%s: only %d entries", when, len(got))
		}
		sameTree(t, withoutTimeOf(want, "numbers"), withoutTimeOf(got, "numbers"))
		r.envfs("umount", r.below("restored")).ok()
	}
	check("copied while mounted")

	// The next backup copies what has changed since.
	r.sh(`printf x | dd of=numbers bs=1 seek=5 conv=notrunc status=none; rm tree/run; mv tree/file-4097 moved`)
	want = snapshot(t, r.mnt)
	r.umount()
	r.sh2(`rsync -aHAX --modify-window=-1 --delete "$DATA/" "$BASE/backup/"`)
	check("copied after the unmount")

	// A part of a backup is as good: a file and the configuration, moved to another place of the tree.
	r.mount()
	cipher := r.ciphertextOf("tree/file-100000")
	r.umount()
	r.mkdir(r.below("part"))
	r.sh2(`cp -a "$DATA/envfs.json" '` + cipher + `' "$BASE/part/"`)
	r.dir = r.below("part")
	r.mount()
	if got := r.read(r.path("file-100000")); got != string(noise(100_000, 6)) {
		t.Error("a file that was restored alone reads differently")
	}
}

// sh2 is sh outside of the mount.
func (r *rig) sh2(script string) string {
	r.t.Helper()
	return r.sh(`cd "$BASE"; ` + script)
}

// withoutTimeOf leaves the time out of account of one entry and of the directory above.
func withoutTimeOf(tree map[string]entry, name string) map[string]entry {
	for _, path := range []string{name, "."} {
		e := tree[path]
		e.Mtime = ""
		tree[path] = e
	}
	return tree
}

// TestSpaceTaken: holes stay holes below, and whole files take one per cent more.
func TestSpaceTaken(t *testing.T) {
	r := mounted(t)
	r.sh(`truncate -s 1G sparse; head -c 10000000 /dev/urandom > full`)
	sparse, full := r.ciphertextOf("sparse"), r.ciphertextOf("full")
	r.umount()
	var st unix.Stat_t
	if err := unix.Stat(sparse, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("a hole of 1 GiB takes %d bytes, %v", st.Blocks*512, err)
	}
	if err := unix.Stat(full, &st); err != nil || st.Size > 10_110_000 {
		t.Errorf("10,000,000 bytes take %d, %v", st.Size, err)
	}
}
