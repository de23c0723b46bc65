package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"
	"time"
)

// What to compare with: the standard library's AES-256-GCM over the same number of
// 4 KiB blocks in the same amount of memory, with a fixed nonce and no associated
// data. envfs must reach nine tenths of it.
func stdlibGCM(b *testing.B) cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}

var benchBlocks = []int{1, 32, 256}

func BenchmarkSeal(b *testing.B) {
	for _, blocks := range benchBlocks {
		plain := make([]byte, blocks*BlockSize)
		b.Run(fmt.Sprintf("stdlib/blocks=%d", blocks), func(b *testing.B) {
			aead, nonce, dst := stdlibGCM(b), make([]byte, 12), make([]byte, blocks*CipherBlockSize)
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				for i := range blocks {
					aead.Seal(dst[i*CipherBlockSize:][:0], nonce, plain[i*BlockSize:][:BlockSize], nil)
				}
			}
		})
		b.Run(fmt.Sprintf("envfs/blocks=%d", blocks), func(b *testing.B) {
			c, dst := newContent(b, 7, testFile), make([]byte, SealedLen(len(plain)))
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				c.SealBlocks(dst, plain, 0)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, blocks := range benchBlocks {
		plain := make([]byte, blocks*BlockSize)
		b.Run(fmt.Sprintf("stdlib/blocks=%d", blocks), func(b *testing.B) {
			aead, nonce := stdlibGCM(b), make([]byte, 12)
			sealed := bytes.Repeat(aead.Seal(nil, nonce, plain[:BlockSize], nil), blocks)
			size := len(sealed) / blocks
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				for i := range blocks {
					if _, err := aead.Open(plain[i*BlockSize:][:0], nonce, sealed[i*size:][:size], nil); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		b.Run(fmt.Sprintf("envfs/blocks=%d", blocks), func(b *testing.B) {
			c := newContent(b, 7, testFile)
			sealed := seal(c, plain, 0)
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.OpenBlocks(plain, sealed, 0, HolesForbidden); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBeside does both by turns and compares the fastest runs, which a busy machine does not disturb. It reports what
// share of the standard library's speed is reached.
func BenchmarkBeside(b *testing.B) {
	for _, blocks := range benchBlocks {
		aead, nonce, c := stdlibGCM(b), make([]byte, 12), newContent(b, 7, testFile)
		plain := make([]byte, blocks*BlockSize)
		sealed, dst := seal(c, plain, 0), make([]byte, SealedLen(len(plain)))
		theirs := bytes.Repeat(aead.Seal(nil, nonce, plain[:BlockSize], nil), blocks)
		size := len(theirs) / blocks
		b.Run(fmt.Sprintf("open/blocks=%d", blocks), func(b *testing.B) {
			beside(b, blocks, func() error {
				for i := range blocks {
					if _, err := aead.Open(plain[i*BlockSize:][:0], nonce, theirs[i*size:][:size], nil); err != nil {
						return err
					}
				}
				return nil
			}, func() error {
				_, err := c.OpenBlocks(plain, sealed, 0, HolesForbidden)
				return err
			})
		})
		b.Run(fmt.Sprintf("seal/blocks=%d", blocks), func(b *testing.B) {
			beside(b, blocks, func() error {
				for i := range blocks {
					aead.Seal(dst[i*CipherBlockSize:][:0], nonce, plain[i*BlockSize:][:BlockSize], nil)
				}
				return nil
			}, func() error {
				c.SealBlocks(dst, plain, 0)
				return nil
			})
		})
	}
}

// beside runs stdlib and ours by turns, each for long enough to be timed and so short that it is rarely interrupted.
func beside(b *testing.B, blocks int, stdlib, ours func() error) {
	fastest := [2]time.Duration{time.Hour, time.Hour}
	for b.Loop() {
		for i, f := range []func() error{stdlib, ours} {
			began := time.Now()
			for range max(1, 32/blocks) {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			fastest[i] = min(fastest[i], time.Since(began))
		}
	}
	b.ReportMetric(100*float64(fastest[0])/float64(fastest[1]), "%stdlib")
}

// A hole costs the comparison with zero and the clearing of the plaintext.
func BenchmarkOpenHole(b *testing.B) {
	c, plain, sealed := newContent(b, 7, testFile), make([]byte, BlockSize), make([]byte, CipherBlockSize)
	b.SetBytes(BlockSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.OpenBlocks(plain, sealed, 0, HolesAllowed); err != nil {
			b.Fatal(err)
		}
	}
}

// What opening a file costs before its first block, the key service aside.
func BenchmarkOpenFile(b *testing.B) {
	dek := make([]byte, DEKSize)
	mac := NewHeaderMAC(dek)
	part := mac.Seal(Header{Suite: SuiteXAES256GCM, BlockLog2: BlockLog2})
	sealed := seal(newContent(b, 0, ID{}), make([]byte, 1), 0)
	b.ReportAllocs()
	for b.Loop() {
		h, err := NewHeaderMAC(dek).Open(part)
		if err != nil {
			b.Fatal(err)
		}
		c, err := NewContentCipher(dek, h.File)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.OpenBlocks(make([]byte, 1), sealed, 0, HolesForbidden); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkName(b *testing.B) {
	c, err := NewNameCipher(make([]byte, DEKSize))
	if err != nil {
		b.Fatal(err)
	}
	encoded := c.Encrypt("a usual name.txt")
	b.Run("encrypt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Encrypt("a usual name.txt")
		}
	})
	b.Run("decrypt", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Decrypt(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkNewestSlot(b *testing.B) {
	header := make([]byte, 2*SmallSlot)
	if err := EncodeSlot(header[:SmallSlot], Slot{Sequence: 1, Wrapped: "vault:v1:abcd"}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := NewestSlot(header, SmallSlot); err != nil {
			b.Fatal(err)
		}
	}
}
