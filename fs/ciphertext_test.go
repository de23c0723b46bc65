package fs

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNothingInTheClear looks for content, names, targets and attribute values in all that is stored.
func TestNothingInTheClear(t *testing.T) {
	r := newRig(t, Options{})
	const word = "Xyzzy-plugh-1977"
	content := []byte(strings.Repeat("secret content "+word+" ", 1000))
	long := word + strings.Repeat("n", 255-len(word))
	for _, name := range []string{word + ".txt", long} {
		r.write(name, content)
		if err := unix.Setxattr(r.path(name), "user.note", []byte("attribute "+word), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(r.path("dir "+word), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("dir "+word+"/"+word, nil)
	if err := os.Symlink("/target/"+word, r.path("link "+word)); err != nil {
		t.Fatal(err)
	}
	r.seal()
	files := 0
	for _, needle := range needles(word) {
		err := filepath.WalkDir(r.cipher, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			files++
			for what, text := range storedTexts(t, path, d) {
				if bytes.Contains(bytes.ToLower(text), bytes.ToLower([]byte(needle))) {
					t.Errorf("%q is to be found in the %s of %s", needle, what, path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 8*len(needles(word)) {
		t.Errorf("looked at %d files only", files)
	}
}

// needles are forms in which a word might be stored: the word, and its middle in base64 at each alignment and in hex.
func needles(word string) []string {
	list := []string{word, word[3:], hex.EncodeToString([]byte(word))}
	for skip := range 3 {
		b := []byte(word)[skip:]
		list = append(list, base64.RawURLEncoding.EncodeToString(b[:len(b)/3*3]))
	}
	return list
}

func storedTexts(t *testing.T, path string, d fs.DirEntry) map[string][]byte {
	t.Helper()
	texts := map[string][]byte{"name": []byte(d.Name())}
	switch {
	case d.Type().IsRegular():
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts["content"] = b
		value := make([]byte, 1000)
		if n, err := unix.Getxattr(path, "user.note", value); err == nil {
			texts["attribute"] = value[:n]
		}
	case d.Type()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		texts["target"] = []byte(target)
	}
	return texts
}

// TestOneByteChangesOneBlock: a backup of a large file in which one byte changed has to carry one block and the header.
func TestOneByteChangesOneBlock(t *testing.T) {
	const header, sealed = 1024, 4136
	r := newRig(t, Options{})
	f, err := os.Create(r.path("large"))
	if err != nil {
		t.Fatal(err)
	}
	mib := pattern(1, 1<<20)
	for i := range 100 {
		mib[0] = byte(i)
		if _, err := f.Write(mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.seal()
	before := sumBlocks(t, r.stored("large"), header, sealed)
	const at = 50<<20 + 12345
	f, err = os.OpenFile(r.path("large"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{'!'}, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.seal()
	after := sumBlocks(t, r.stored("large"), header, sealed)
	if len(before) != len(after) || len(after) != 1+100<<20/block {
		t.Fatalf("%d blocks became %d", len(before), len(after))
	}
	var changed []int
	for i := range after {
		if before[i] != after[i] {
			changed = append(changed, i)
		}
	}
	if len(changed) != 2 || changed[0] != 0 || changed[1] != 1+at/block {
		t.Errorf("blocks that changed (0 is the header): %v", changed)
	}
}

// sumBlocks returns a sum of the header and of each block of a stored file.
func sumBlocks(t *testing.T, path string, header, size int) [][32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sums := [][32]byte{sha256.Sum256(b[:header])}
	for b = b[header:]; len(b) > 0; b = b[min(size, len(b)):] {
		sums = append(sums, sha256.Sum256(b[:min(size, len(b))]))
	}
	return sums
}
