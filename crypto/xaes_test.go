package crypto

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The published vectors of c2sp.org/XAES-256-GCM.
var xaesVectors = []struct {
	key                   byte
	k1, derived           string
	additional, plaintext string
	sealed                string
}{
	{
		key: 1, k1: "e531954aca063d5b8d9c47a47d4cc6f0",
		derived:   "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
		plaintext: "XAES-256-GCM",
		sealed:    "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
	},
	{
		key: 3, k1: "23810ec50edb99f374409466ed1f4b7b",
		derived:    "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
		additional: "c2sp.org/XAES-256-GCM", plaintext: "XAES-256-GCM",
		sealed: "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
	},
}

const xaesVectorNonce = "ABCDEFGHIJKLMNOPQRSTUVWX"

func TestXAESVectors(t *testing.T) {
	for _, v := range xaesVectors {
		x, err := NewXAES(bytes.Repeat([]byte{v.key}, 32))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(x.k1[:]); got != v.k1 {
			t.Errorf("key %02x: K1 = %s, want %s", v.key, got, v.k1)
		}
		nonce := []byte(xaesVectorNonce)
		derived := x.deriveKey((*[PrefixSize]byte)(nonce))
		if got := hex.EncodeToString(derived[:]); got != v.derived {
			t.Errorf("key %02x: Kx = %s, want %s", v.key, got, v.derived)
		}
		sealed := x.AEAD().Seal(nil, nonce, []byte(v.plaintext), []byte(v.additional))
		if got := hex.EncodeToString(sealed); got != v.sealed {
			t.Errorf("key %02x: sealed = %s, want %s", v.key, got, v.sealed)
		}
		plain, err := x.AEAD().Open(nil, nonce, sealed, []byte(v.additional))
		if err != nil || string(plain) != v.plaintext {
			t.Errorf("key %02x: opened = %q, %v", v.key, plain, err)
		}
		aead, err := x.Derive((*[PrefixSize]byte)(nonce))
		if err != nil {
			t.Fatal(err)
		}
		if got := aead.Seal(nil, nonce[PrefixSize:], []byte(v.plaintext), []byte(v.additional)); !bytes.Equal(got, sealed) {
			t.Errorf("key %02x: Derive seals %x, AEAD seals %x", v.key, got, sealed)
		}
	}
}

func TestXAESAccumulated(t *testing.T) {
	t.Run("10000", func(t *testing.T) {
		accumulated(t, 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939")
	})
	t.Run("1000000", func(t *testing.T) {
		if raceEnabled || testing.Short() {
			t.Skip("a million iterations are too slow with -race, and too slow for -short")
		}
		accumulated(t, 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15")
	})
}

func accumulated(t *testing.T, iterations int, want string) {
	in, out := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		in.Read(b)
		return b
	}
	for i := range iterations {
		key, nonce := read(32), read(NonceSize)
		plain := read(int(read(1)[0]))
		additional := read(int(read(1)[0]))
		x, err := NewXAES(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed := x.AEAD().Seal(nil, nonce, plain, additional)
		opened, err := x.AEAD().Open(nil, nonce, sealed, additional)
		if err != nil || !bytes.Equal(opened, plain) {
			t.Fatalf("iteration %d does not open: %v", i, err)
		}
		out.Write(sealed)
	}
	sum := make([]byte, 32)
	out.Read(sum)
	if got := hex.EncodeToString(sum); got != want {
		t.Errorf("%d iterations give %s, want %s", iterations, got, want)
	}
}

func TestXAESRefuses(t *testing.T) {
	for _, size := range []int{0, 16, 31, 33, 64} {
		if _, err := NewXAES(make([]byte, size)); err == nil {
			t.Errorf("a key of %d bytes is accepted", size)
		}
	}
	x, _ := NewXAES(make([]byte, 32))
	aead, nonce := x.AEAD(), make([]byte, NonceSize)
	sealed := aead.Seal(nil, nonce, []byte("text"), []byte("additional"))
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := aead.Open(nil, nonce, bad, []byte("additional")); err == nil {
			t.Errorf("a flipped byte %d is accepted", i)
		}
	}
	for i := range nonce {
		bad := bytes.Clone(nonce)
		bad[i] ^= 1
		if _, err := aead.Open(nil, bad, sealed, []byte("additional")); err == nil {
			t.Errorf("a flipped nonce byte %d is accepted", i)
		}
	}
	if _, err := aead.Open(nil, nonce, sealed, []byte("Additional")); err == nil {
		t.Error("other associated data is accepted")
	}
	if _, err := aead.Open(nil, nonce, sealed[:TagSize-1], nil); err == nil {
		t.Error("a message shorter than its tag is accepted")
	}
	defer func() {
		if recover() == nil {
			t.Error("a nonce of 12 bytes does not panic")
		}
	}()
	aead.Seal(nil, nonce[:12], nil, nil)
}
