package crypto

import (
	"bytes"
	"errors"
	"testing"
)

var testHeader = Header{
	Suite: SuiteXAES256GCM, BlockLog2: BlockLog2, Flags: FlagSealed | FlagSparse,
	Volume: ID{1, 2, 3}, File: ID{4, 5, 6}, Size: 123456789,
}

func newMAC(key byte) *HeaderMAC { return NewHeaderMAC(bytes.Repeat([]byte{key}, DEKSize)) }

func TestHeaderRoundTrip(t *testing.T) {
	mac := newMAC(1)
	for _, flags := range []Flags{0, FlagSealed, FlagSparse, FlagSealed | FlagSparse} {
		for _, size := range []uint64{0, 1, 4096, maxSealedSize} {
			want := testHeader
			want.Flags, want.Size = flags, size
			part := mac.Seal(want)
			if got, err := newMAC(1).Open(part); got != want || err != nil {
				t.Errorf("opened %+v, %v, want %+v", got, err, want)
			}
			if got, err := part.Peek(); got != want || err != nil {
				t.Errorf("peeked %+v, %v, want %+v", got, err, want)
			}
		}
	}
}

func TestHeaderTampering(t *testing.T) {
	part := newMAC(1).Seal(testHeader)
	for i := range part {
		for _, bit := range []byte{1, 0x80} {
			bad := part
			bad[i] ^= bit
			if _, err := newMAC(1).Open(bad); !errors.Is(err, ErrHeaderTampered) {
				t.Errorf("byte %d flipped: %v", i, err)
			}
		}
	}
	if _, err := newMAC(2).Open(part); !errors.Is(err, ErrHeaderTampered) {
		t.Errorf("under another DEK: %v", err)
	}
	if _, err := newMAC(1).Open(SealedPart{}); !errors.Is(err, ErrHeaderTampered) {
		t.Errorf("all zero: %v", err)
	}
}

func TestPeekRefuses(t *testing.T) {
	part := newMAC(1).Seal(testHeader)
	for name, change := range map[string]func(p *SealedPart){
		"suite 0":        func(p *SealedPart) { p[0] = 0 },
		"suite 2":        func(p *SealedPart) { p[0] = 2 },
		"blocks of 2 KB": func(p *SealedPart) { p[1] = 11 },
		"blocks of 2^64": func(p *SealedPart) { p[1] = 64 },
		"a third flag":   func(p *SealedPart) { p[3] |= 4 },
		"a high flag":    func(p *SealedPart) { p[2] |= 0x80 },
		"reserved 4":     func(p *SealedPart) { p[4] = 1 },
		"reserved 7":     func(p *SealedPart) { p[7] = 1 },
		"a huge size":    func(p *SealedPart) { p[40] = 0x80 },
	} {
		bad := part
		change(&bad)
		if _, err := bad.Peek(); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		// Authentic, but of a version to come: not the same as tampered.
		copy(bad[sealedFields:], newMAC(1).sum(bad))
		if _, err := newMAC(1).Open(bad); !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrHeaderTampered) {
			t.Errorf("%s, authentic: %v", name, err)
		}
	}
}

func TestHeaderMACWipe(t *testing.T) {
	mac := newMAC(1)
	key := mac.key
	mac.Wipe()
	mac.Wipe()
	if !bytes.Equal(key, make([]byte, len(key))) {
		t.Error("the key is not zero")
	}
	defer func() {
		if recover() == nil {
			t.Error("a wiped HeaderMAC still seals")
		}
	}()
	mac.Seal(testHeader)
}

func TestSealRefusesWhatOpenWould(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a header of suite 9 is sealed")
		}
	}()
	newMAC(1).Seal(Header{Suite: 9, BlockLog2: BlockLog2})
}
