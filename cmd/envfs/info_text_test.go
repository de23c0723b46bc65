package main

import (
	"math"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/volume"
)

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 12345: "12,345", 123456: "123,456", 1234567: "1,234,567",
		-1: "-1", -999: "-999", -1000: "-1,000", math.MaxInt64: "9,223,372,036,854,775,807",
	} {
		if got := number(n); got != want {
			t.Errorf("number(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0:             "0 bytes",
		1023:          "1,023 bytes",
		1024:          "1.0 KiB (1,024 bytes)",
		1075:          "1.0 KiB (1,075 bytes)",
		1076:          "1.1 KiB (1,076 bytes)",
		1<<20 - 52:    "1023.9 KiB (1,048,524 bytes)",
		1<<20 - 1:     "1.0 MiB (1,048,575 bytes)",
		1 << 20:       "1.0 MiB (1,048,576 bytes)",
		5 << 40:       "5.0 TiB (5,497,558,138,880 bytes)",
		math.MaxInt64: "8.0 EiB (9,223,372,036,854,775,807 bytes)",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestInfoText(t *testing.T) {
	sealed := uint64(5000)
	report := infoReport{
		Entry: &infoEntry{Type: "file", CiphertextPath: "/data/x/y", PlaintextNote: "needs the key"},
		File: &volume.FileInfo{
			CiphertextSize: 6104, PlaintextSize: 4999,
			Slots: []volume.SlotInfo{
				{Valid: true, Sequence: 3, KEKVersion: 2},
				{Valid: true, Current: true, Sequence: 4, KEKVersion: 12},
			},
			Header:   &volume.HeaderInfo{Suite: 1, BlockSize: 4096, Sealed: true, Sparse: true, SealedSize: &sealed, KEKVersion: 12},
			Problems: []string{"sizes differ"},
		},
	}
	want := `type             file
plaintext path   (needs the key)
ciphertext path  /data/x/y
ciphertext size  6.0 KiB (6,104 bytes)
plaintext size   4.9 KiB (4,999 bytes)
file ID          00000000000000000000000000000000
volume ID        00000000000000000000000000000000
key of the file  wrapped by key version 12
cipher suite     1, blocks of 4,096 bytes
state            sealed at 5,000 bytes, may have holes
header slot 0    valid, sequence 3, key version 2
header slot 1    current, sequence 4, key version 12
problem          sizes differ
`
	var got strings.Builder
	if err := report.write(&got); err != nil || got.String() != want {
		t.Errorf("report is\n%s(%v), want\n%s", got.String(), err, want)
	}
}

func TestDescribeSlot(t *testing.T) {
	for want, slot := range map[string]volume.SlotInfo{
		"not used yet":    {Problem: crypto.ErrNoSlot.Error()},
		"not valid: torn": {Problem: "torn"},
		"current, sequence 1, a key of unknown version":       {Valid: true, Current: true, Sequence: 1},
		"valid, sequence 18446744073709551615, key version 1": {Valid: true, Sequence: math.MaxUint64, KEKVersion: 1},
	} {
		if got := describeSlot(slot); got != want {
			t.Errorf("%+v is described as %q, want %q", slot, got, want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	got := markdown("a * b_c < d\n  column  <x>\n  $x\nend")
	want := "a \\* b\\_c \\< d\n\n    column  <x>\n    $x\n\nend\n"
	if got != want {
		t.Errorf("markdown is\n%q, want\n%q", got, want)
	}
}
