package volume

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
)

func sealedHeader() crypto.Header {
	return crypto.Header{
		Suite: 1, BlockLog2: crypto.BlockLog2, Flags: crypto.FlagSealed,
		Volume: crypto.ID{1}, File: crypto.ID{2}, Size: 4096,
	}
}

func inspectBytes(t *testing.T, content []byte) FileInfo {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	writeFile(t, path, string(content))
	info, err := InspectFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Path != path || info.CiphertextSize != int64(len(content)) {
		t.Errorf("%d bytes: %+v", len(content), info)
	}
	return info
}

func TestInspectFile(t *testing.T) {
	for _, slotSize := range []int{512, 1024} {
		content := append(testSlots(t, slotSize, sealedHeader()), make([]byte, 4136)...)
		info := inspectBytes(t, content)
		if info.PlaintextSize != 4096 || len(info.Problems) != 0 || len(info.Slots) != 2 || info.Header == nil {
			t.Fatalf("slots of %d: %+v", slotSize, info)
		}
		want := [2]SlotInfo{
			{Size: slotSize, Valid: true, Sequence: 4, KEKVersion: 2},
			{Size: slotSize, Valid: true, Sequence: 5, KEKVersion: 3, Current: true},
		}
		if [2]SlotInfo(info.Slots) != want {
			t.Errorf("slots of %d: %+v", slotSize, info.Slots)
		}
		h := *info.Header
		if h.SealedSize == nil || *h.SealedSize != 4096 {
			t.Errorf("sealed size %v", h.SealedSize)
		}
		h.SealedSize = nil
		if h != (HeaderInfo{Suite: 1, BlockSize: 4096, Sealed: true, VolumeID: crypto.ID{1}, FileID: crypto.ID{2}, KEKVersion: 3}) {
			t.Errorf("header: %+v", h)
		}
	}
}

func TestInspectFileStates(t *testing.T) {
	good := func() []byte { return testSlots(t, 512, sealedHeader()) }
	for name, test := range map[string]struct {
		content []byte
		problem string // part of the only problem; "" for none
		slots   string // of each: ! current, + valid, - invalid
		plain   int64
	}{
		"empty":            {nil, "", "", 0},
		"one byte":         {[]byte("E"), "shorter than its header", "", 0},
		"header cut short": {good()[:1023], "shorter than its header", "+", 0},
		"header alone":     {good(), "4096 were sealed", "+!", 0},
		"block missing":    {append(good(), make([]byte, 41)...), "4096 were sealed", "+!", 1},
		"newer slot torn":  {append(flipped(good(), 600), make([]byte, 4136)...), "", "!-", 4096},
		"older slot torn":  {append(flipped(good(), 100), make([]byte, 4136)...), "", "-!", 4096},
		"one slot only":    {append(append(make([]byte, 512), good()[512:]...), make([]byte, 4136)...), "", "-!", 4096},
		"both slots torn":  {append(flipped(flipped(good(), 100), 600), make([]byte, 4136)...), "no valid header", "--", 4096},
		"zeros":            {make([]byte, 1024), "no valid header", "--", 0},
		"foreign":          {[]byte(strings.Repeat("hello world\n", 200)), "no valid header", "--", 1336},
		"large slots torn": {flipped(flipped(testSlots(t, 1024, sealedHeader()), 100), 1100), "no valid header", "--", 0},
	} {
		info := inspectBytes(t, test.content)
		slots := ""
		for _, s := range info.Slots {
			switch {
			case s.Current:
				slots += "!"
			case s.Valid:
				slots += "+"
			default:
				slots += "-"
			}
			if s.Valid == (s.Problem != "") {
				t.Errorf("%s: slot %+v", name, s)
			}
		}
		problems := strings.Join(info.Problems, "; ")
		if slots != test.slots || info.PlaintextSize != test.plain ||
			!strings.Contains(problems, test.problem) || (problems == "") != (test.problem == "") {
			t.Errorf("%s: %+v", name, info)
		}
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestInspectFileFlags(t *testing.T) {
	h := sealedHeader()
	h.Flags = crypto.FlagSparse
	info := inspectBytes(t, testSlots(t, 512, h))
	if info.Header == nil || info.Header.Sealed || !info.Header.Sparse || info.Header.SealedSize != nil || len(info.Problems) != 0 {
		t.Errorf("unsealed, sparse: %+v", info)
	}
	text, err := json.Marshal(info)
	if err != nil || !strings.Contains(string(text), `"sealed_size":null`) ||
		!strings.Contains(string(text), `"volume_id":"01000000000000000000000000000000"`) {
		t.Errorf("JSON: %s, %v", text, err)
	}
}

// TestInspectFileUnknownSuite: a slot is whole, but its header is of a later
// version.
func TestInspectFileUnknownSuite(t *testing.T) {
	header := testSlots(t, 512, sealedHeader())
	slot, err := crypto.DecodeSlot(header[:512])
	if err != nil {
		t.Fatal(err)
	}
	slot.Sequence, slot.Sealed[0] = 9, 9
	if err := crypto.EncodeSlot(header[:512], slot); err != nil {
		t.Fatal(err)
	}
	info := inspectBytes(t, header)
	if info.Header != nil || len(info.Problems) != 1 || !info.Slots[0].Current {
		t.Errorf("unknown suite: %+v", info)
	}
}

func TestInspectFileRefuses(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(fifo, 0o600), os.Symlink("/etc/hostname", link)); err != nil {
		t.Fatal(err)
	}
	for path, class := range map[string]error{
		fifo: ErrNotRegular, link: ErrNotRegular, dir: ErrNotRegular, "/dev/zero": ErrNotRegular,
		filepath.Join(dir, "none"): os.ErrNotExist,
	} {
		if _, err := InspectFile(path); !errors.Is(err, class) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, class)
		}
	}
}

func FuzzInspectHeader(f *testing.F) {
	for _, slotSize := range []int{512, 1024} {
		header := testSlots(f, slotSize, sealedHeader())
		f.Add(header, int64(slotSize*2+4136))
		f.Add(header[:slotSize+1], int64(slotSize+1))
		f.Add(flipped(header, 700), int64(1<<40))
	}
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, header []byte, size int64) {
		header = header[:min(len(header), maxHeader)]
		info := FileInfo{CiphertextSize: max(size, int64(len(header)))}
		info.inspect(header)
		current := 0
		for _, s := range info.Slots {
			if s.Current {
				current++
			}
			if s.Current && !s.Valid {
				t.Fatalf("an invalid slot counts: %+v", info)
			}
		}
		if current > 1 || (current == 0 && info.Header != nil) || info.PlaintextSize < 0 {
			t.Fatalf("%+v", info)
		}
		if current == 0 && len(header) > 0 && len(info.Problems) == 0 {
			t.Fatalf("no header and no problem: %+v", info)
		}
	})
}
