package crypto

import (
	"errors"
	"math"
	"testing"
)

func TestLayoutSizes(t *testing.T) {
	for _, slot := range []int64{SmallSlot, LargeSlot} {
		l := Layout{SlotSize: slot}
		header := 2 * slot
		if l.HeaderSize() != header {
			t.Errorf("slot %d: header of %d bytes", slot, l.HeaderSize())
		}
		for _, v := range []struct{ plain, body int64 }{
			{0, 0}, {1, 41}, {2, 42}, {4095, 4135}, {4096, 4136}, {4097, 4177},
			{8191, 8271}, {8192, 8272}, {8193, 8313}, {1000*4096 + 1, 1000*4136 + 41},
			{5 << 30, 5 << 30 / 4096 * 4136},
		} {
			if got := l.CipherSize(v.plain); got != header+v.body {
				t.Errorf("slot %d: CipherSize(%d) = %d, want %d", slot, v.plain, got, header+v.body)
			}
			if got, err := l.PlainSize(header + v.body); got != v.plain || err != nil {
				t.Errorf("slot %d: PlainSize(%d) = %d, %v, want %d", slot, header+v.body, got, err, v.plain)
			}
		}
	}
}

func TestPlainSizeOfBrokenFiles(t *testing.T) {
	l := Layout{SlotSize: SmallSlot}
	if got, err := l.PlainSize(0); got != 0 || err != nil {
		t.Errorf("PlainSize(0) = %d, %v", got, err)
	}
	for _, cipher := range []int64{-1, 1, 511, 512, 1023} {
		if got, err := l.PlainSize(cipher); got != 0 || !errors.Is(err, ErrTruncatedHeader) {
			t.Errorf("PlainSize(%d) = %d, %v, want ErrTruncatedHeader", cipher, got, err)
		}
	}
	for blocks := range int64(3) {
		for rest := int64(0); rest <= BlockOverhead+1; rest++ {
			got, err := l.PlainSize(l.BlockOffset(blocks) + rest)
			want, torn := blocks*BlockSize, rest > 0 && rest <= BlockOverhead
			if rest > BlockOverhead {
				want++
			}
			if got != want || errors.Is(err, ErrTornTail) != torn || (err != nil) != torn {
				t.Errorf("PlainSize of %d blocks and %d bytes = %d, %v", blocks, rest, got, err)
			}
		}
	}
}

func TestBlockOffset(t *testing.T) {
	l := Layout{SlotSize: LargeSlot}
	for _, v := range []struct{ index, offset int64 }{
		{0, 2048}, {1, 2048 + 4136}, {1 << 30, 2048 + 4136<<30}, {math.MaxInt64, math.MaxInt64},
	} {
		if got := l.BlockOffset(v.index); got != v.offset {
			t.Errorf("BlockOffset(%d) = %d, want %d", v.index, got, v.offset)
		}
	}
}

func TestLargestSizes(t *testing.T) {
	for _, slot := range []int64{SmallSlot, LargeSlot} {
		l := Layout{SlotSize: slot}
		largest := l.MaxPlainSize()
		if largest < math.MaxInt64/100*99 {
			t.Errorf("the largest plaintext is %d: more than the overhead of blocks is missing", largest)
		}
		for _, plain := range []int64{largest, largest - 1, largest - BlockSize} {
			if got, err := l.PlainSize(l.CipherSize(plain)); got != plain || err != nil {
				t.Errorf("%d becomes %d, %v", plain, got, err)
			}
		}
		for _, plain := range []int64{largest + 1, math.MaxInt64} {
			if got := l.CipherSize(plain); got != math.MaxInt64 {
				t.Errorf("CipherSize(%d) = %d, want the largest int64", plain, got)
			}
		}
		last := (math.MaxInt64 - l.HeaderSize()) / CipherBlockSize
		if got := l.BlockOffset(last); got-CipherBlockSize != l.BlockOffset(last-1) {
			t.Errorf("BlockOffset(%d) = %d", last, got)
		}
		if got := l.BlockOffset(last + 1); got != math.MaxInt64 {
			t.Errorf("BlockOffset(%d) = %d, want the largest int64", last+1, got)
		}
	}
}
