package integration

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// damage is one way in which a ciphertext file can be changed behind the back of envfs.
type damage struct {
	name   string
	change func(data, other []byte) []byte // of a file of 10 blocks; other is that of another file
	blocks []int                           // blocks that cannot be read; nil: the file cannot be opened
}

func damages() []damage {
	flip := func(offset int) func(data, _ []byte) []byte {
		return func(data, _ []byte) []byte {
			data[offset] ^= 1
			return data
		}
	}
	block := func(i int) int { return headerSize + i*cipherBlockSize }
	return []damage{
		{"byte of a nonce", flip(block(3) + 5), []int{3}},
		{"byte of a block", flip(block(4) + 2000), []int{4}},
		{"byte of a tag", flip(block(5) - 1), []int{4}},
		{"byte of the last block", flip(block(9) + 100), []int{9}},
		{"two blocks swapped", func(data, _ []byte) []byte {
			first := bytes.Clone(data[block(1):block(2)])
			copy(data[block(1):], data[block(2):block(3)])
			copy(data[block(2):], first)
			return data
		}, []int{1, 2}},
		{"block of another file", func(data, other []byte) []byte {
			copy(data[block(6):block(7)], other[block(6):block(7)])
			return data
		}, []int{6}},
		{"block of zeros", func(data, _ []byte) []byte {
			clear(data[block(7):block(8)])
			return data
		}, []int{7}},
		{"cut by a block", func(data, _ []byte) []byte { return data[:block(9)] }, nil},
		{"cut by a byte", func(data, _ []byte) []byte { return data[:len(data)-1] }, nil},
		{"grown by a hole", func(data, _ []byte) []byte { return append(data, make([]byte, 5000)...) }, nil},
		{"header cut short", func(data, _ []byte) []byte { return data[:700] }, nil},
		{"header of zeros", func(data, _ []byte) []byte {
			clear(data[:headerSize])
			return data
		}, nil},
		{"header of another file", func(data, other []byte) []byte {
			copy(data[:headerSize], other[:headerSize])
			return data
		}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}, // it is authentic, and has the size of the file
		{"wrapped key of another file", func(data, other []byte) []byte {
			for slot := 0; slot < headerSize; slot += slotSize {
				graft(data[slot:slot+slotSize], other[slot:slot+slotSize])
			}
			return data
		}, nil},
	}
}

// TestDamage reads files that were changed on disk: EIO for what was changed, everything else as ever.
func TestDamage(t *testing.T) {
	r := newRig(t)
	r.faults = true
	content := noise(9*4096+1000, 1)
	r.mount()
	tests := damages()
	for _, test := range append(tests, damage{name: "other"}) {
		r.write(r.path(test.name), string(content))
	}
	paths := map[string]string{}
	for _, test := range append(tests, damage{name: "other"}) {
		paths[test.name] = r.ciphertextOf(test.name)
	}
	r.umount()
	other := []byte(r.read(paths["other"]))
	for _, test := range tests {
		data := test.change([]byte(r.read(paths[test.name])), other)
		r.write(paths[test.name], string(data))
	}
	r.mount()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.blocks == nil {
				if _, err := os.ReadFile(r.path(test.name)); !errors.Is(err, syscall.EIO) {
					t.Errorf("opening: %v, want EIO", err)
				}
			} else {
				checkBlocks(t, r.path(test.name), content, test.blocks)
			}
			// What needs no key works. Writing does not destroy what is left.
			damaged := r.read(paths[test.name])
			if f, err := os.OpenFile(r.path(test.name), os.O_WRONLY|os.O_APPEND, 0); err == nil && test.blocks == nil {
				t.Errorf("a file that cannot be read is opened for writing: %v", f.Close())
			} else if err == nil {
				_ = f.Close() // nothing was written
			}
			if r.read(paths[test.name]) != damaged {
				t.Error("an attempt to open has changed a damaged file")
			}
			r.sh(`n='` + test.name + `'; test -f "$n"; mv "$n" "$n!"; chmod 640 "$n!"; stat "$n!" > /dev/null; rm "$n!"; test ! -e "$n"`)
		})
	}
	if got := r.read(r.path("other")); got != string(content) {
		t.Error("a file that was not touched reads differently")
	}
	log := r.read(r.log)
	for _, test := range tests {
		name := filepath.Base(paths[test.name])
		if n := strings.Count(log, "ciphertext="+name); n != max(1, len(test.blocks)) {
			t.Errorf("%s: %d lines in the log, want one for each fault", test.name, n)
		}
	}
}

// checkBlocks reads a file block by block.
func checkBlocks(t *testing.T, path string, content []byte, bad []int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close() // only read
	for i := 0; i*4096 < len(content); i++ {
		want := content[i*4096 : min((i+1)*4096, len(content))]
		got := make([]byte, len(want))
		_, err := f.ReadAt(got, int64(i)*4096)
		isBad := false
		for _, b := range bad {
			isBad = isBad || b == i
		}
		if isBad && !errors.Is(err, syscall.EIO) {
			t.Errorf("block %d: %v, want EIO", i, err)
		}
		if !isBad && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("block %d, a neighbour: %v, or another content", i, err)
		}
	}
}
