package crypto

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every fuzz target has seeds of its own (f.Add) and committed ones, which go test
// runs as well; without them a target that finds nothing would look like a good one.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	source, err := os.ReadFile("fuzz_test.go")
	if err != nil {
		t.Fatal(err)
	}
	bodies := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`).FindAllSubmatchIndex(source, -1)
	if len(bodies) != 9 {
		t.Errorf("%d fuzz targets, want 9", len(bodies))
	}
	for i, at := range bodies {
		name, end := string(source[at[2]:at[3]]), len(source)
		if i+1 < len(bodies) {
			end = bodies[i+1][0]
		}
		if !bytes.Contains(source[at[0]:end], []byte("f.Add(")) {
			t.Errorf("%s adds no seed", name)
		}
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 0 {
			t.Errorf("%s has no seed in testdata", name)
		}
		for _, file := range files {
			if b, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(b, []byte("go test fuzz v1\n")) {
				t.Errorf("%s is no seed: %v", file, err)
			}
		}
	}
}

func FuzzDecodeSlot(f *testing.F) {
	f.Add(encode(f, SmallSlot, testSlot(1, "vault:v1:abc")))
	f.Add(encode(f, LargeSlot, testSlot(2, strings.Repeat("w", 906))))
	f.Add(make([]byte, SmallSlot))
	f.Add([]byte("ENVFSHD1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum would keep the fuzzer from everything behind it.
		for _, src := range [][]byte{b, summed(b)} {
			s, err := DecodeSlot(src)
			if err != nil {
				continue
			}
			if again := encode(t, len(src), s); !bytes.Equal(again, src) {
				t.Errorf("%x\nbecomes\n%x", src, again)
			}
		}
	})
}

func summed(b []byte) []byte {
	if len(b) < checksumSize {
		return nil
	}
	return resum(bytes.Clone(b))
}

func FuzzNewestSlot(f *testing.F) {
	f.Add(encode(f, SmallSlot, testSlot(1, "w")), encode(f, SmallSlot, testSlot(2, "w")), false)
	f.Add(encode(f, LargeSlot, testSlot(1, "w")), make([]byte, LargeSlot), true)
	f.Add([]byte{}, []byte{}, true)
	f.Fuzz(func(t *testing.T, first, second []byte, large bool) {
		size := SmallSlot
		if large {
			size = LargeSlot
		}
		header := append(summed(first), summed(second)...)
		s, index, err := NewestSlot(header, size)
		if err != nil {
			return
		}
		chosen, err := DecodeSlot(header[index*size:][:size])
		if err != nil || chosen != s {
			t.Fatalf("slot %d was chosen, decoding it gives %v", index, err)
		}
		if other, err := DecodeSlot(header[(1-index)*size:][:size]); err == nil && other.Sequence > s.Sequence {
			t.Errorf("sequence %d was chosen before %d", s.Sequence, other.Sequence)
		}
	})
}

func FuzzSealedPart(f *testing.F) {
	part := newMAC(1).Seal(testHeader)
	f.Add(part[:])
	f.Add(make([]byte, SealedPartSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < SealedPartSize {
			return
		}
		mac, p := newMAC(1), SealedPart(b)
		if h, err := p.Peek(); err == nil {
			again := mac.Seal(h)
			if !bytes.Equal(again[:sealedFields], p[:sealedFields]) {
				t.Errorf("%x\nbecomes\n%x", p, again)
			}
		}
		if h, err := mac.Open(p); err == nil && mac.Seal(h) != p {
			t.Errorf("%x opens and is not what Seal makes", p)
		}
	})
}

func FuzzOpenBlocks(f *testing.F) {
	c := newContent(f, 7, testFile)
	f.Add(seal(c, []byte("text"), 0), uint64(0), false)
	f.Add(seal(c, make([]byte, BlockSize+1), 9), uint64(9), false)
	f.Add(make([]byte, CipherBlockSize+41), uint64(0), true)
	f.Add([]byte{1}, uint64(1), true)
	f.Fuzz(func(t *testing.T, sealed []byte, first uint64, allowed bool) {
		holes := HolesForbidden
		if allowed {
			holes = HolesAllowed
		}
		dst := make([]byte, OpenedLen(len(sealed)))
		n, err := newContent(t, 7, testFile).OpenBlocks(dst, sealed, first, holes)
		var bad *BlockError
		switch {
		case err == nil && n != len(dst):
			t.Errorf("opened %d of %d bytes without an error", n, len(dst))
		case err != nil && !errors.As(err, &bad):
			t.Errorf("error %v is no BlockError", err)
		case err != nil && (bad.Index-first)*BlockSize != uint64(n):
			t.Errorf("block %d is bad, yet %d bytes were opened from block %d on", bad.Index, n, first)
		}
	})
}

func FuzzNameDecrypt(f *testing.F) {
	c := newNames(f, 1)
	f.Add(c.Encrypt("name"))
	f.Add(c.Encrypt(strings.Repeat("n", 255)))
	f.Add("lost+found")
	f.Add("")
	f.Fuzz(func(t *testing.T, encoded string) {
		// Fuzzing never forges a SIV, so the text is also tried as a name.
		if name, err := c.Decrypt(encoded); err == nil && c.Encrypt(name) != encoded {
			t.Errorf("%q decrypts to %q, which is encrypted differently", encoded, name)
		}
		name, err := c.Decrypt(c.Encrypt(encoded))
		if isName(encoded) != (err == nil) || err == nil && name != encoded {
			t.Errorf("name %q becomes %q, %v", encoded, name, err)
		}
	})
}

func FuzzCheckLong(f *testing.F) {
	long := newNames(f, 1).Encrypt(strings.Repeat("n", 200))
	stored, _ := StoredName(long)
	f.Add(stored, long)
	f.Add(SidecarName(stored), "short")
	f.Add("envfs.json", "")
	f.Fuzz(func(t *testing.T, stored, encoded string) {
		if err := CheckLong(stored, encoded); err == nil {
			if again, long := StoredName(encoded); again != stored || !long || !IsLong(stored) {
				t.Errorf("%q is accepted for %q", encoded, stored)
			}
		}
		if IsLong(stored) && LongOfSidecar(SidecarName(stored)) != stored {
			t.Errorf("the sidecar of %q belongs to another name", stored)
		}
		if IsSidecar(stored) && SidecarName(LongOfSidecar(stored)) != stored {
			t.Errorf("the long name of %q has another sidecar", stored)
		}
		if again, long := StoredName(encoded); long && CheckLong(again, encoded) != nil && len(encoded) <= MaxEncodedName {
			t.Errorf("%q is refused for %q", encoded, again)
		}
	})
}

func FuzzLinkDecrypt(f *testing.F) {
	c := newLinks(f, 1)
	stored, err := c.Encrypt("../target")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add("/etc/passwd")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if target, err := c.Decrypt(text); err == nil && len(target) != c.PlainLen(len(text)) {
			t.Errorf("%q has a target of %d bytes, PlainLen says %d", text, len(target), c.PlainLen(len(text)))
		}
		if decoded, err := decode(text); err == nil && encoding.EncodeToString(decoded) != text {
			t.Errorf("%q is one of two texts for the same bytes", text)
		}
		stored, err := c.Encrypt(text)
		if err != nil {
			return
		}
		target, err := c.Decrypt(stored)
		if possible := text != "" && !strings.Contains(text, "\x00"); possible != (err == nil) || possible && target != text {
			t.Errorf("target %q becomes %q, %v", text, target, err)
		}
	})
}

func FuzzValueOpen(f *testing.F) {
	c := newValues(f, 1)
	f.Add("user.name", c.Seal("user.name", []byte("value")))
	f.Add("user.name", make([]byte, ValueOverhead))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if value, err := c.Open(name, b); err == nil && len(value) != len(b)-ValueOverhead {
			t.Errorf("a sealed value of %d bytes opens to %d", len(b), len(value))
		}
		if value, err := c.Open(name, c.Seal(name, b)); err != nil || !bytes.Equal(value, b) {
			t.Errorf("value %x becomes %x, %v", b, value, err)
		}
	})
}

func FuzzLayout(f *testing.F) {
	f.Add(int64(0), false)
	f.Add(int64(4096), true)
	f.Add(int64(1024+4136+40), false)
	f.Add(int64(math.MaxInt64), true)
	f.Add(int64(math.MinInt64), true)
	f.Fuzz(func(t *testing.T, size int64, large bool) {
		l := Layout{SlotSize: SmallSlot}
		if large {
			l.SlotSize = LargeSlot
		}
		plain, err := l.PlainSize(size)
		if plain < 0 || plain > l.MaxPlainSize() {
			t.Errorf("PlainSize(%d) = %d", size, plain)
		}
		if err == nil && size != 0 && l.CipherSize(plain) != size {
			t.Errorf("%d on disk are %d in the clear, which are %d on disk", size, plain, l.CipherSize(plain))
		}
		if size >= 0 && size <= l.MaxPlainSize() {
			if again, err := l.PlainSize(l.CipherSize(size)); again != size || err != nil {
				t.Errorf("%d in the clear become %d, %v", size, again, err)
			}
			if end := l.BlockOffset(size / BlockSize); end > l.CipherSize(size) {
				t.Errorf("block %d begins at %d, behind the end of the file", size/BlockSize, end)
			}
		}
	})
}
