package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
)

// examples are the worked examples of doc/format.md, which were made with another
// implementation of the cryptography. A test takes each value once; what no test
// takes is an example that nobody checks.
type examples struct {
	t      *testing.T
	values map[string]string
	unused map[string]bool
}

func readExamples(t *testing.T) *examples {
	t.Helper()
	text, err := os.ReadFile("../doc/format.md")
	if err != nil {
		t.Fatal(err)
	}
	e := &examples{t: t, values: map[string]string{}, unused: map[string]bool{}}
	for i, part := range strings.Split(string(text), "```example\n") {
		if i == 0 {
			continue
		}
		block, _, closed := strings.Cut(part, "```")
		if !closed {
			t.Fatal("an example block has no end")
		}
		for line := range strings.Lines(block) {
			name, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !found || e.values[name] != "" {
				t.Errorf("the line %q is no example, or a second one of its name", line)
			}
			e.values[name], e.unused[name] = value, true
		}
	}
	return e
}

func (e *examples) text(name string) string {
	e.t.Helper()
	if e.values[name] == "" {
		e.t.Errorf("there is no example %s", name)
	}
	delete(e.unused, name)
	return e.values[name]
}

func (e *examples) bytes(name string) []byte {
	e.t.Helper()
	return unhex(e.t, e.text(name))
}

func (e *examples) number(name string) int {
	e.t.Helper()
	n, err := strconv.Atoi(e.text(name))
	if err != nil {
		e.t.Error(err)
	}
	return n
}

func (e *examples) want(name string, got []byte) {
	e.t.Helper()
	if want := e.text(name); hex.EncodeToString(got) != want {
		e.t.Errorf("%s is %x, the document says %s", name, got, want)
	}
}

func (e *examples) wantText(name, got string) {
	e.t.Helper()
	if want := e.text(name); got != want {
		e.t.Errorf("%s is %q, the document says %q", name, got, want)
	}
}

func TestFormatDocument(t *testing.T) {
	e := readExamples(t)
	if len(e.values) < 40 {
		t.Fatalf("%d examples in doc/format.md", len(e.values))
	}
	e.want("payload", append(e.bytes("dek"), e.bytes("file-id")...))
	checkFile(t, e)
	checkNames(t, e)
	checkValues(t, e)
	checkConfig(t, e)
	checkLocal(t, e)
	for name := range e.unused {
		t.Errorf("nothing checks the example %s", name)
	}
}

func checkFile(t *testing.T, e *examples) {
	dek, file := e.bytes("dek"), ID(e.bytes("file-id"))
	mac := NewHeaderMAC(dek)
	e.want("header-mac-key", mac.key)
	h := Header{Suite: SuiteXAES256GCM, BlockLog2: BlockLog2, Volume: ID(e.bytes("volume-id")), File: file}
	unsealed := mac.Seal(h)
	h.Flags, h.Size = FlagSealed, uint64(len(e.bytes("plaintext")))
	sealed := mac.Seal(h)
	e.want("unsealed-part", unsealed[:])
	e.want("sealed-part", sealed[:])

	wrapped := e.text("wrapped")
	slot0 := encode(t, SmallSlot, Slot{Sequence: 1, Wrapped: wrapped, Sealed: unsealed})
	slot1 := encode(t, SmallSlot, Slot{Sequence: 2, Wrapped: wrapped, Sealed: sealed})
	e.want("slot0-head", slot0[:slotFixed])
	e.want("slot0-checksum", slot0[SmallSlot-checksumSize:])
	e.want("slot1-head", slot1[:slotFixed])
	e.want("slot1-checksum", slot1[SmallSlot-checksumSize:])

	x, err := NewXAES(dek)
	if err != nil {
		t.Fatal(err)
	}
	nonce := e.bytes("nonce")
	derived := x.deriveKey((*[PrefixSize]byte)(nonce))
	e.want("derived-key", derived[:])
	block := append(nonce, x.AEAD().Seal(nil, nonce, e.bytes("plaintext"), e.bytes("block0-aad"))...)
	e.want("block0", block)
	whole := append(append(slot0, slot1...), block...)
	if len(whole) != e.number("file-size") {
		t.Errorf("the file has %d bytes", len(whole))
	}
	sum := sha256.Sum256(whole)
	e.want("file-sha256", sum[:])

	e.want("block1", append(bytes.Clone(nonce), x.AEAD().Seal(nil, nonce, e.bytes("block1-plaintext"), e.bytes("block1-aad"))...))
	readExampleFile(t, e, whole)
}

// readExampleFile reads the document's file as a mount does.
func readExampleFile(t *testing.T, e *examples, whole []byte) {
	l := Layout{SlotSize: SmallSlot}
	s, index, err := NewestSlot(whole, SmallSlot)
	if err != nil || index != 1 {
		t.Fatalf("slot %d, %v", index, err)
	}
	h, err := NewHeaderMAC(e.bytes("dek")).Open(s.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := l.PlainSize(int64(len(whole))); err != nil || uint64(size) != h.Size {
		t.Errorf("%d bytes, sealed are %d, %v", size, h.Size, err)
	}
	c, err := NewContentCipher(e.bytes("dek"), h.File)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"0", "1"} {
		block := e.bytes("block" + name)
		dst := make([]byte, OpenedLen(len(block)))
		if _, err := c.OpenBlocks(dst, block, uint64(i), HolesForbidden); err != nil {
			t.Errorf("block %d: %v", i, err)
		}
		want := e.bytes(map[int]string{0: "plaintext", 1: "block1-plaintext"}[i])
		if !bytes.Equal(dst, want) {
			t.Errorf("block %d is %q, want %q", i, dst, want)
		}
	}
}

func checkNames(t *testing.T, e *examples) {
	key := e.bytes("volume-key")
	e.want("siv-key", deriveKey(key, labelNames, 64))
	c, err := NewNameCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	e.wantText("name-stored", c.Encrypt(e.text("name")))
	encoded := c.Encrypt(e.text("longname"))
	e.wantText("longname-encoded", encoded)
	stored, _ := StoredName(encoded)
	e.wantText("longname-stored", stored)
	e.wantText("longname-sidecar", SidecarName(stored))
}

func checkValues(t *testing.T, e *examples) {
	key := e.bytes("volume-key")
	e.want("symlink-key", deriveKey(key, labelSymlinks, 32))
	e.want("xattr-key", deriveKey(key, labelXattrs, 32))
	links, err := NewLinkCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	stored := e.text("symlink-stored")
	if target, err := links.Decrypt(stored); err != nil || target != e.text("symlink-target") || links.PlainLen(len(stored)) != len(target) {
		t.Errorf("symlink target %q, %v", target, err)
	}
	values, err := NewValueCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	value, err := values.Open(e.text("xattr-name"), e.bytes("xattr-stored"))
	if err != nil {
		t.Error(err)
	}
	e.want("xattr-value", value)
}

func checkConfig(t *testing.T, e *examples) {
	c := NewConfigMAC(e.bytes("volume-key"))
	e.want("config-mac-key", c.key)
	if err := c.Verify([]byte(e.text("config-authenticated")), e.bytes("config-mac")); err != nil {
		t.Error(err)
	}
	text := e.text("config-checksummed")
	sum := sha256.Sum256([]byte(text))
	e.want("config-checksum", sum[:])
	if !strings.Contains(text, e.text("config-mac")) || !strings.Contains(text, e.text("volume-id")) || !strings.Contains(text, e.text("wrapped")) {
		t.Error("the configuration is not that of the other examples")
	}
}

func checkLocal(t *testing.T, e *examples) {
	derived := argon2.IDKey([]byte(e.text("passphrase")), e.bytes("argon2id-salt"), uint32(e.number("argon2id-time")),
		uint32(e.number("argon2id-memory-kib")), uint8(e.number("argon2id-threads")), 32)
	e.want("argon2id-key", derived)
	open := func(key []byte, text, additional string) []byte {
		sealed, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		x, err := NewXAES(key)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := openValue(x.AEAD(), sealed, []byte(additional))
		if err != nil {
			t.Error(err)
		}
		return plain
	}
	e.want("kek", open(derived, e.text("kek-wrapped"), "envfs local kek v1\x00\x00\x00\x01"))
	wrapped, ok := strings.CutPrefix(e.text("local-wrapped"), "local:v1:")
	if !ok {
		t.Error("the wrapped payload is not of version 1")
	}
	e.want("payload", open(e.bytes("kek"), wrapped, "envfs local wrap v1"))
}
