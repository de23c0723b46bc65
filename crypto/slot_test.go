package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func encode(t testing.TB, size int, s Slot) []byte {
	t.Helper()
	b := bytes.Repeat([]byte{0xaa}, size) // what was there must not show
	if err := EncodeSlot(b, s); err != nil {
		t.Fatal(err)
	}
	return b
}

func testSlot(sequence uint64, wrapped string) Slot {
	return Slot{Sequence: sequence, Wrapped: wrapped, Sealed: newMAC(1).Seal(testHeader)}
}

// resum gives a changed slot a right checksum.
func resum(b []byte) []byte {
	sum := sha256.Sum256(b[:len(b)-checksumSize])
	copy(b[len(b)-checksumSize:], sum[:])
	return b
}

func TestSlotRoundTrip(t *testing.T) {
	for _, size := range []int{SmallSlot, LargeSlot} {
		for _, length := range []int{1, 2, 100, MaxWrapped(size) - 1, MaxWrapped(size)} {
			for _, sequence := range []uint64{0, 1, 1<<64 - 1} {
				want := testSlot(sequence, strings.Repeat("w", length))
				b := encode(t, size, want)
				got, err := DecodeSlot(b)
				if err != nil || got != want {
					t.Errorf("size %d, wrapped %d: %v", size, length, err)
				}
				if again := encode(t, size, got); !bytes.Equal(again, b) {
					t.Errorf("size %d, wrapped %d: encoded again differs", size, length)
				}
			}
		}
	}
}

func TestSlotSizes(t *testing.T) {
	if MaxWrapped(SmallSlot) != 394 || MaxWrapped(LargeSlot) != 906 {
		t.Errorf("MaxWrapped = %d, %d", MaxWrapped(SmallSlot), MaxWrapped(LargeSlot))
	}
	for _, v := range []struct{ length, size int }{{1, 512}, {393, 512}, {394, 512}, {395, 1024}, {906, 1024}, {907, 0}} {
		size, err := SlotSizeFor(v.length)
		if size != v.size || errors.Is(err, ErrWrappedTooLong) != (v.size == 0) {
			t.Errorf("SlotSizeFor(%d) = %d, %v", v.length, size, err)
		}
	}
}

func TestEncodeSlotRefuses(t *testing.T) {
	for _, v := range []struct {
		size    int
		wrapped string
		want    error
	}{
		{512, strings.Repeat("w", 395), ErrWrappedTooLong},
		{1024, strings.Repeat("w", 907), ErrWrappedTooLong},
		{1024, strings.Repeat("w", 1<<16), ErrWrappedTooLong},
		{0, "w", ErrSlotSize}, {511, "w", ErrSlotSize}, {513, "w", ErrSlotSize}, {2048, "w", ErrSlotSize},
		{512, "", ErrMalformedSlot}, {512, "a b", ErrMalformedSlot}, {512, "a\n", ErrMalformedSlot},
		{512, "\x7f", ErrMalformedSlot}, {512, "é", ErrMalformedSlot},
	} {
		dst := bytes.Repeat([]byte{0xaa}, v.size)
		err := EncodeSlot(dst, testSlot(1, v.wrapped))
		if !errors.Is(err, v.want) {
			t.Errorf("slot of %d, wrapped of %d bytes: %v, want %v", v.size, len(v.wrapped), err, v.want)
		}
		if !bytes.Equal(dst, bytes.Repeat([]byte{0xaa}, v.size)) {
			t.Errorf("slot of %d, wrapped of %d bytes: dst is changed", v.size, len(v.wrapped))
		}
	}
}

func TestEachFlippedBitOfASlotIsDetected(t *testing.T) {
	for _, size := range []int{SmallSlot, LargeSlot} {
		b := encode(t, size, testSlot(7, "vault:v3:abcdef"))
		for i := range b {
			for bit := range 8 {
				b[i] ^= 1 << bit
				if _, err := DecodeSlot(b); err == nil {
					t.Errorf("size %d: bit %d of byte %d flipped and accepted", size, bit, i)
				}
				b[i] ^= 1 << bit
			}
		}
	}
}

func TestDecodeSlotErrors(t *testing.T) {
	good := encode(t, SmallSlot, testSlot(7, "vault:v3:abcdef"))
	for _, v := range []struct {
		name   string
		want   error
		change func(b []byte) []byte
	}{
		{"all zero", ErrNoSlot, func(b []byte) []byte { return make([]byte, SmallSlot) }},
		{"other magic", ErrBadMagic, func(b []byte) []byte { b[7] = '2'; return resum(b) }},
		{"plain text", ErrBadMagic, func(b []byte) []byte { return bytes.Repeat([]byte("text"), 128) }},
		{"newer", ErrNewerVersion, func(b []byte) []byte { b[9] = 2; return resum(b) }},
		{"much newer", ErrNewerVersion, func(b []byte) []byte { b[8] = 0xff; return resum(b) }},
		{"newer, but torn", ErrChecksum, func(b []byte) []byte { b[9] = 2; return b }},
		{"version 0", ErrMalformedSlot, func(b []byte) []byte { b[9] = 0; return resum(b) }},
		{"other slot size", ErrSlotSize, func(b []byte) []byte { binary.BigEndian.PutUint16(b[10:], 1024); return resum(b) }},
		{"impossible slot size", ErrMalformedSlot, func(b []byte) []byte { b[11] = 1; return resum(b) }},
		{"read too short", ErrSlotSize, func(b []byte) []byte { return b[:511] }},
		{"read as large", ErrSlotSize, func(b []byte) []byte { return append(b, make([]byte, 512)...) }},
		{"empty", ErrSlotSize, func(b []byte) []byte { return nil }},
		{"checksum", ErrChecksum, func(b []byte) []byte { b[511] ^= 1; return b }},
		{"long wrapped", ErrMalformedSlot, func(b []byte) []byte { binary.BigEndian.PutUint16(b[20:], 395); return resum(b) }},
		{"huge wrapped", ErrMalformedSlot, func(b []byte) []byte { binary.BigEndian.PutUint16(b[20:], 65535); return resum(b) }},
		{"no wrapped", ErrMalformedSlot, func(b []byte) []byte { clear(b[20:40]); return resum(b) }},
		{"control character", ErrMalformedSlot, func(b []byte) []byte { b[slotFixed] = 27; return resum(b) }},
		{"padding", ErrMalformedSlot, func(b []byte) []byte { b[415] = 'x'; return resum(b) }},
	} {
		if _, err := DecodeSlot(v.change(bytes.Clone(good))); !errors.Is(err, v.want) {
			t.Errorf("%s: %v, want %v", v.name, err, v.want)
		}
	}
}

// A write cut off after any number of bytes, over an older slot or over nothing, is
// either not begun, complete, or found out; the other slot serves.
func TestTornSlot(t *testing.T) {
	for _, size := range []int{SmallSlot, LargeSlot} {
		current := encode(t, size, testSlot(8, "vault:v3:current"))
		written := encode(t, size, testSlot(9, "vault:v4:new"))
		for name, old := range map[string][]byte{
			"over a slot":  encode(t, size, testSlot(7, "vault:v2:older-and-longer")),
			"over nothing": make([]byte, size),
		} {
			for cut := range size + 1 {
				torn := append(bytes.Clone(written[:cut]), old[cut:]...)
				wantIndex := 0 // the current one, in place 0
				if bytes.Equal(torn, written) {
					wantIndex = 1
				} else if _, err := DecodeSlot(torn); err == nil && !bytes.Equal(torn, old) {
					t.Fatalf("%s, size %d: torn after %d bytes and accepted", name, size, cut)
				}
				header := append(bytes.Clone(current), torn...)
				s, index, err := NewestSlot(header, size)
				if err != nil || index != wantIndex || s.Sequence != uint64(8+wantIndex) {
					t.Fatalf("%s, size %d, torn after %d bytes: index %d, sequence %d, %v", name, size, cut, index, s.Sequence, err)
				}
			}
		}
	}
}

// A device may write the 512-byte sectors of a large slot in any order.
func TestTornSectors(t *testing.T) {
	old := encode(t, LargeSlot, testSlot(7, strings.Repeat("o", 700)))
	written := encode(t, LargeSlot, testSlot(9, strings.Repeat("n", 700)))
	mixed := append(bytes.Clone(old[:512]), written[512:]...)
	if _, err := DecodeSlot(mixed); !errors.Is(err, ErrChecksum) {
		t.Errorf("old first sector, new second: %v", err)
	}
}

func TestNewestSlot(t *testing.T) {
	var (
		low     = encode(t, SmallSlot, testSlot(1, "local:v1:low"))
		high    = encode(t, SmallSlot, testSlot(2, "local:v1:high"))
		last    = encode(t, SmallSlot, testSlot(1<<64-1, "local:v1:last"))
		none    = make([]byte, SmallSlot)
		damaged = bytes.Clone(high)
		foreign = bytes.Repeat([]byte("x"), SmallSlot)
		newer   = resum(append(append(bytes.Clone(low[:9]), 2), low[10:]...))
	)
	damaged[100] ^= 1
	for _, v := range []struct {
		name     string
		slots    [2][]byte
		sequence uint64
		index    int
		wants    []error
	}{
		{"second is newer", [2][]byte{low, high}, 2, 1, nil},
		{"first is newer", [2][]byte{high, low}, 2, 0, nil},
		{"unsigned", [2][]byte{last, low}, 1<<64 - 1, 0, nil},
		{"same sequence", [2][]byte{low, low}, 1, 0, nil},
		{"only first", [2][]byte{low, none}, 1, 0, nil},
		{"only second", [2][]byte{none, low}, 1, 1, nil},
		{"first damaged", [2][]byte{damaged, low}, 1, 1, nil},
		{"second damaged", [2][]byte{low, damaged}, 1, 0, nil},
		{"none", [2][]byte{none, none}, 0, 0, []error{ErrNoSlot}},
		{"none and damaged", [2][]byte{none, damaged}, 0, 0, []error{ErrChecksum}},
		{"damaged and none", [2][]byte{damaged, none}, 0, 0, []error{ErrChecksum}},
		{"foreign and damaged", [2][]byte{foreign, damaged}, 0, 0, []error{ErrBadMagic, ErrChecksum}},
		{"newer version first", [2][]byte{newer, high}, 0, 0, []error{ErrNewerVersion}},
		{"newer version second", [2][]byte{high, newer}, 0, 1, []error{ErrNewerVersion}},
	} {
		header := append(bytes.Clone(v.slots[0]), v.slots[1]...)
		for _, extra := range []int{0, CipherBlockSize} {
			s, index, err := NewestSlot(append(header, make([]byte, extra)...), SmallSlot)
			if s.Sequence != v.sequence || index != v.index || (err == nil) != (v.wants == nil) {
				t.Errorf("%s: sequence %d at %d, %v", v.name, s.Sequence, index, err)
			}
			for _, want := range v.wants {
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", v.name, err, want)
				}
			}
			if errors.Is(err, ErrNoSlot) && v.wants[0] != ErrNoSlot {
				t.Errorf("%s: %v counts as no slot", v.name, err)
			}
		}
	}
}

func TestNewestSlotSizes(t *testing.T) {
	header := append(encode(t, SmallSlot, testSlot(1, "w")), make([]byte, SmallSlot)...)
	for _, n := range []int{0, 1, 511, 512, 1023} {
		if _, _, err := NewestSlot(header[:n], SmallSlot); !errors.Is(err, ErrTruncatedHeader) {
			t.Errorf("header of %d bytes: %v", n, err)
		}
	}
	for _, size := range []int{-512, 0, 256, 513, 1 << 30} {
		if _, _, err := NewestSlot(header, size); !errors.Is(err, ErrSlotSize) {
			t.Errorf("slot size %d: %v", size, err)
		}
	}
}

func ExampleNewestSlot() {
	header := make([]byte, 2*SmallSlot)
	_ = EncodeSlot(header[SmallSlot:], Slot{Sequence: 5, Wrapped: "vault:v3:abc"})
	s, index, err := NewestSlot(header, SmallSlot)
	fmt.Println(s.Sequence, s.Wrapped, index, err)
	// Output: 5 vault:v3:abc 1 <nil>
}
