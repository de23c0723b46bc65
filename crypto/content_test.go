package crypto

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
)

var testFile = ID{0: 0xf1, 15: 0x1f}

func newContent(t testing.TB, key byte, file ID) *ContentCipher {
	t.Helper()
	c, err := NewContentCipher(bytes.Repeat([]byte{key}, DEKSize), file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func seal(c *ContentCipher, plain []byte, first uint64) []byte {
	sealed := make([]byte, SealedLen(len(plain)))
	c.SealBlocks(sealed, plain, first)
	return sealed
}

// wantBlockError opens sealed, which must fail at that block for that reason after
// the plaintext before it.
func wantBlockError(t *testing.T, c *ContentCipher, sealed []byte, first uint64, holes HolePolicy, before []byte, want BlockError) {
	t.Helper()
	dst := make([]byte, OpenedLen(len(sealed)))
	n, err := c.OpenBlocks(dst, sealed, first, holes)
	var bad *BlockError
	if !errors.As(err, &bad) || *bad != want {
		t.Errorf("error is %v, want %v", err, &want)
	}
	if !bytes.Equal(dst[:n], before) {
		t.Errorf("%d bytes before the bad block, want %d", n, len(before))
	}
	if !bytes.Equal(dst[n:], make([]byte, len(dst)-n)) {
		t.Error("bytes of the bad block or a later one are in dst")
	}
}

func TestContentRoundTrip(t *testing.T) {
	sizes := []int{
		0, 1, 2, 15, 16, 17, BlockSize - 1, BlockSize, BlockSize + 1, 2*BlockSize - 1, 2 * BlockSize, 2*BlockSize + 1,
		noncesPerDraw*BlockSize - 1, noncesPerDraw * BlockSize, noncesPerDraw*BlockSize + 1, 200*BlockSize + 17,
	}
	for _, size := range sizes {
		for _, first := range []uint64{0, 1, 1 << 40, 1<<64 - 300} {
			t.Run(fmt.Sprintf("%d from %d", size, first), func(t *testing.T) {
				plain := randomBytes(size)
				sealed := seal(newContent(t, 7, testFile), plain, first)
				// A second cipher knows nothing of the first one's prefix.
				// Guard bytes around dst show writes beyond the plaintext.
				buffer := bytes.Repeat([]byte{0xaa}, size+32)
				dst := buffer[16 : 16+size]
				n, err := newContent(t, 7, testFile).OpenBlocks(dst, sealed, first, HolesForbidden)
				if err != nil || n != size || !bytes.Equal(dst, plain) {
					t.Fatalf("opened %d of %d bytes, error %v, equal %v", n, size, err, bytes.Equal(dst, plain))
				}
				guard := bytes.Repeat([]byte{0xaa}, 16)
				if !bytes.Equal(buffer[:16], guard) || !bytes.Equal(buffer[16+size:], guard) {
					t.Error("written outside of dst")
				}
			})
		}
	}
}

// A larger dst is left alone beyond n, even within its length.
func TestOpenBlocksTouchesOnlyItsBytes(t *testing.T) {
	c := newContent(t, 7, testFile)
	plain := randomBytes(BlockSize + 5)
	dst := bytes.Repeat([]byte{0xaa}, 3*BlockSize)
	n, err := c.OpenBlocks(dst, seal(c, plain, 0), 0, HolesForbidden)
	if err != nil || !bytes.Equal(dst[:n], plain) {
		t.Fatalf("opened %d bytes, error %v", n, err)
	}
	if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xaa}, len(dst)-n)) {
		t.Error("bytes beyond n are changed")
	}
}

func TestSealedLen(t *testing.T) {
	for _, v := range []struct{ plain, sealed int }{
		{0, 0}, {1, 41}, {4095, 4135}, {4096, 4136}, {4097, 4177}, {8192, 8272}, {8193, 8313},
	} {
		if got := SealedLen(v.plain); got != v.sealed {
			t.Errorf("SealedLen(%d) = %d, want %d", v.plain, got, v.sealed)
		}
		if got := OpenedLen(v.sealed); got != v.plain {
			t.Errorf("OpenedLen(%d) = %d, want %d", v.sealed, got, v.plain)
		}
	}
	for torn := 1; torn <= BlockOverhead; torn++ {
		if got := OpenedLen(CipherBlockSize + torn); got != BlockSize {
			t.Errorf("OpenedLen with a tail of %d = %d", torn, got)
		}
	}
}

func TestEachFlippedByteIsDetected(t *testing.T) {
	c := newContent(t, 7, testFile)
	for _, size := range []int{1, 100, BlockSize} {
		sealed := seal(c, bytes.Repeat([]byte{'x'}, size), 3)
		for i := range sealed {
			sealed[i] ^= 0x40
			wantBlockError(t, c, sealed, 3, HolesAllowed, nil, BlockError{3, ReasonTampered})
			sealed[i] ^= 0x40
		}
		if _, err := c.OpenBlocks(make([]byte, size), sealed, 3, HolesForbidden); err != nil {
			t.Fatalf("the restored block does not open: %v", err)
		}
	}
}

func TestMisplacedBlocks(t *testing.T) {
	c := newContent(t, 7, testFile)
	plain := randomBytes(3 * BlockSize)
	sealed := seal(c, plain, 0)
	block := func(b []byte, i int) []byte { return b[i*CipherBlockSize:][:CipherBlockSize] }

	t.Run("swapped", func(t *testing.T) {
		swapped := bytes.Clone(sealed)
		copy(block(swapped, 1), block(sealed, 2))
		copy(block(swapped, 2), block(sealed, 1))
		wantBlockError(t, c, swapped, 0, HolesAllowed, plain[:BlockSize], BlockError{1, ReasonTampered})
	})
	t.Run("other index", func(t *testing.T) {
		wantBlockError(t, c, sealed, 1, HolesAllowed, nil, BlockError{1, ReasonTampered})
	})
	t.Run("other file, same key", func(t *testing.T) {
		other := newContent(t, 7, ID{1})
		mixed := bytes.Clone(sealed)
		copy(block(mixed, 1), block(seal(other, plain, 0), 1))
		wantBlockError(t, c, mixed, 0, HolesAllowed, plain[:BlockSize], BlockError{1, ReasonTampered})
	})
	t.Run("same file ID, other key", func(t *testing.T) {
		wantBlockError(t, newContent(t, 8, testFile), sealed, 0, HolesAllowed, nil, BlockError{0, ReasonTampered})
	})
	t.Run("cut short", func(t *testing.T) {
		cut := sealed[:len(sealed)-1]
		wantBlockError(t, c, cut, 0, HolesAllowed, plain[:2*BlockSize], BlockError{2, ReasonTampered})
	})
	t.Run("torn", func(t *testing.T) {
		for tail := 1; tail <= BlockOverhead; tail++ {
			torn := sealed[:CipherBlockSize+tail]
			wantBlockError(t, c, torn, 0, HolesAllowed, plain[:BlockSize], BlockError{1, ReasonTorn})
		}
	})
}

func TestHoles(t *testing.T) {
	c := newContent(t, 7, testFile)
	plain := randomBytes(4*BlockSize + 10)
	sealed := seal(c, plain, 0)
	clear(sealed[CipherBlockSize : 2*CipherBlockSize]) // block 1
	clear(sealed[4*CipherBlockSize:])                  // the short block 4
	clear(plain[BlockSize : 2*BlockSize])
	clear(plain[4*BlockSize:])

	wantBlockError(t, c, sealed, 0, HolesForbidden, plain[:BlockSize], BlockError{1, ReasonZeroed})
	wantBlockError(t, c, sealed[4*CipherBlockSize:], 4, HolesForbidden, nil, BlockError{4, ReasonZeroed})

	dst := bytes.Repeat([]byte{0xaa}, len(plain)) // old content of a reused buffer
	if n, err := c.OpenBlocks(dst, sealed, 0, HolesAllowed); err != nil || n != len(plain) || !bytes.Equal(dst, plain) {
		t.Errorf("opened %d bytes, error %v, equal %v", n, err, bytes.Equal(dst, plain))
	}

	// One byte that is not zero makes it no hole, wherever it stands.
	for i := range CipherBlockSize {
		hole := make([]byte, CipherBlockSize)
		hole[i] = 1
		if isZero(hole) {
			t.Fatalf("a block with byte %d set counts as zero", i)
		}
	}
	almost := make([]byte, CipherBlockSize)
	almost[CipherBlockSize-1] = 1
	wantBlockError(t, c, almost, 0, HolesAllowed, nil, BlockError{0, ReasonTampered})
	torn := make([]byte, BlockOverhead)
	wantBlockError(t, c, torn, 0, HolesAllowed, nil, BlockError{0, ReasonTorn})
}

func TestNonces(t *testing.T) {
	c := newContent(t, 7, testFile)
	plain := make([]byte, 300*BlockSize)
	seen := map[string]bool{}
	prefixes := map[string]bool{}
	for range 2 {
		sealed := seal(c, plain, 0)
		for len(sealed) > 0 {
			prefixes[string(sealed[:PrefixSize])] = true
			seen[string(sealed[:NonceSize])] = true
			sealed = sealed[CipherBlockSize:]
		}
	}
	if len(prefixes) != 1 {
		t.Errorf("%d prefixes in one session, want 1", len(prefixes))
	}
	if len(seen) != 600 {
		t.Errorf("%d different nonces in 600 blocks", len(seen))
	}
	other := seal(newContent(t, 7, testFile), plain[:1], 0)
	if prefixes[string(other[:PrefixSize])] {
		t.Error("two sessions share a prefix")
	}
}

func TestPrefixIsRenewedAtItsBound(t *testing.T) {
	c := newContent(t, 7, testFile)
	plain := make([]byte, 2*BlockSize)
	prefix := func() string { return string(seal(c, plain, 0)[:PrefixSize]) }
	first := prefix()
	c.sealing.Load().blocks.Store(blocksPerPrefix - 2)
	if prefix() != first {
		t.Error("prefix renewed before its bound")
	}
	second := prefix()
	if second == first {
		t.Error("prefix kept beyond its bound")
	}
	if prefix() != second {
		t.Error("the new prefix is not kept")
	}
}

func TestDerivedKeysAreRemembered(t *testing.T) {
	plain := []byte("text")
	var sealed [][]byte
	for range recentKeys + 1 {
		sealed = append(sealed, seal(newContent(t, 7, testFile), plain, 0))
	}
	c := newContent(t, 7, testFile)
	open := func(i int) {
		t.Helper()
		dst := make([]byte, len(plain))
		if _, err := c.OpenBlocks(dst, sealed[i], 0, HolesForbidden); err != nil || !bytes.Equal(dst, plain) {
			t.Fatalf("prefix %d does not open: %v", i, err)
		}
	}
	for i := range recentKeys {
		open(i)
	}
	derived := c.evict.Load()
	for i := range recentKeys {
		open(i)
	}
	if c.evict.Load() != derived {
		t.Error("a remembered key was derived again")
	}
	open(recentKeys) // replaces the oldest
	open(0)
	if got := c.evict.Load() - derived; got != 2 {
		t.Errorf("%d derivations after the cache overflowed, want 2", got)
	}
}

func TestContentConcurrently(t *testing.T) {
	c := newContent(t, 7, testFile)
	others := make([][]byte, 2*recentKeys)
	plain := randomBytes(2*BlockSize + 100)
	for i := range others {
		others[i] = seal(newContent(t, 7, testFile), plain, 5)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			dst := make([]byte, len(plain))
			for i := range 50 {
				for _, sealed := range [][]byte{others[(g+i)%len(others)], seal(c, plain, 5)} {
					clear(dst)
					if n, err := c.OpenBlocks(dst, sealed, 5, HolesForbidden); err != nil || !bytes.Equal(dst[:n], plain) {
						t.Errorf("opened %d bytes, error %v", n, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestContentPanicsOnWrongSizes(t *testing.T) {
	c := newContent(t, 7, testFile)
	mustPanic := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s does not panic", name)
			}
		}()
		f()
	}
	mustPanic("a short dst to seal", func() { c.SealBlocks(make([]byte, 40), make([]byte, 1), 0) })
	mustPanic("a long dst to seal", func() { c.SealBlocks(make([]byte, 42), make([]byte, 1), 0) })
	mustPanic("a short dst to open", func() { _, _ = c.OpenBlocks(nil, make([]byte, 41), 0, HolesAllowed) })
	for _, size := range []int{0, 31, 33} {
		if _, err := NewContentCipher(make([]byte, size), testFile); err == nil {
			t.Errorf("a DEK of %d bytes is accepted", size)
		}
	}
}

func TestContentDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool forget")
	}
	c := newContent(t, 7, testFile)
	for _, blocks := range []int{1, 100} {
		plain := make([]byte, blocks*BlockSize)
		sealed := seal(c, plain, 0)
		if n := testing.AllocsPerRun(100, func() { c.SealBlocks(sealed, plain, 0) }); n != 0 {
			t.Errorf("sealing %d blocks allocates %v times", blocks, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = c.OpenBlocks(plain, sealed, 0, HolesForbidden) }); n != 0 {
			t.Errorf("opening %d blocks allocates %v times", blocks, n)
		}
		clear(sealed)
		if n := testing.AllocsPerRun(100, func() { _, _ = c.OpenBlocks(plain, sealed, 0, HolesAllowed) }); n != 0 {
			t.Errorf("opening %d holes allocates %v times", blocks, n)
		}
	}
}
