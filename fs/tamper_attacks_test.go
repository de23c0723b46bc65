package fs

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/keyringtest"
	"golang.org/x/sys/unix"
)

// Offsets in a header slot of 512 bytes.
const (
	slotBytes  = 512
	sealedPart = slotBytes - 96
	checksum   = slotBytes - 16
	// newest is where the slot that counts is in all files, and older where the other one is: written, sealed, written, sealed.
	newest, older = slotBytes, 0
)

// tamperedTime is what the attack on times sets.
const tamperedTime = 12345

func (c *tampered) must(err error) {
	c.r.t.Helper()
	if err != nil {
		c.r.t.Fatalf("%s: %v", c.dir, err)
	}
}

// edit changes a ciphertext file.
func (c *tampered) edit(name string, change func(b []byte) []byte) {
	c.r.t.Helper()
	b, err := os.ReadFile(c.paths[name])
	c.must(err)
	c.put(name, change(b))
}

// put replaces a ciphertext file. The inode stays.
func (c *tampered) put(name string, b []byte) {
	c.r.t.Helper()
	c.must(os.WriteFile(c.paths[name], b, 0o644))
}

// ciphertext reads a ciphertext file.
func (c *tampered) ciphertext(name string) []byte {
	c.r.t.Helper()
	b, err := os.ReadFile(c.paths[name])
	c.must(err)
	return b
}

// swap exchanges two entries.
func (c *tampered) swap(one, two string) {
	c.r.t.Helper()
	c.must(unix.Renameat2(unix.AT_FDCWD, c.paths[one], unix.AT_FDCWD, c.paths[two], unix.RENAME_EXCHANGE))
}

// xattr copies the stored value of an attribute to another place.
func (c *tampered) xattr(fromFile, fromName, toFile, toName string, change func(b []byte)) {
	c.r.t.Helper()
	buf := make([]byte, 1000)
	n, err := unix.Getxattr(c.paths[fromFile], fromName, buf)
	c.must(err)
	change(buf[:n])
	c.must(unix.Setxattr(c.paths[toFile], toName, buf[:n], 0))
}

// fixChecksums makes the checksums of both slots right, as an attacker would.
func fixChecksums(b []byte) []byte {
	for _, slot := range [][]byte{b[:slotBytes], b[slotBytes : 2*slotBytes]} {
		sum := sha256.Sum256(slot[:checksum])
		copy(slot[checksum:], sum[:])
	}
	return b
}

// flips are ways to change one bit of file a, at each of the offsets.
func flips(fix bool, offsets ...[]int) (ways []func(c *tampered)) {
	for _, together := range offsets {
		ways = append(ways, func(c *tampered) {
			c.edit("a", func(b []byte) []byte {
				for _, offset := range together {
					b[offset] ^= 1
				}
				if fix {
					fixChecksums(b)
				}
				return b
			})
		})
	}
	return ways
}

// edits are ways to change file a.
func edits(changes ...func(b []byte) []byte) []func(c *tampered) {
	return editsOf("a", changes...)
}

func editsOf(name string, changes ...func(b []byte) []byte) (ways []func(c *tampered)) {
	for _, change := range changes {
		ways = append(ways, func(c *tampered) { c.edit(name, change) })
	}
	return ways
}

func way(f func(c *tampered)) []func(c *tampered) { return []func(c *tampered){f} }

// cuts are ways to shorten a file.
func cuts(lengths ...int) (ways []func(c *tampered)) {
	for _, n := range lengths {
		ways = append(ways, editsOf("t", func(b []byte) []byte { return b[:n] })...)
	}
	return ways
}

// headerFields are the fields of a slot: one byte of each.
func headerFields() map[string]int {
	return map[string]int{
		"magic": 3, "version": 9, "slot size": 11, "sequence": 19, "length of the wrapped key": 21, "wrapped key": 60, "padding": 350,
		"suite": sealedPart, "block size": sealedPart + 1, "flags": sealedPart + 3, "reserved": sealedPart + 5,
		"volume ID": sealedPart + 8, "file ID": sealedPart + 24, "size": sealedPart + 47, "MAC": sealedPart + 48, "checksum": checksum,
	}
}

// fields returns offsets of header fields: in both slots, or in one of them.
func fields(leaveOut []string, slots ...int) (offsets [][]int) {
	for name, offset := range headerFields() {
		if slices.Contains(leaveOut, name) {
			continue
		}
		var together []int
		for _, slot := range slots {
			together = append(together, slot+offset)
		}
		offsets = append(offsets, together)
	}
	return offsets
}

func fileAttacks(t *testing.T, r *rig) []attack {
	return slices.Concat(blockAttacks(), sizeAttacks(), headerAttacks(), wholeFileAttacks(otherVolumes(t, r)), nameAttacks(), valueAttacks())
}

func blockAttacks() []attack {
	copyBlock := func(from func(c *tampered) []byte, block int) []func(c *tampered) {
		return way(func(c *tampered) {
			source := from(c)
			c.edit("a", func(b []byte) []byte { copy(b[at(2, 0):at(3, 0)], source[at(block, 0):at(block+1, 0)]); return b })
		})
	}
	zero := func(from, to int) func(b []byte) []byte {
		return func(b []byte) []byte { clear(b[from:to]); return b }
	}
	return []attack{
		{"a bit of a block flipped: in its nonce, ciphertext or tag", flips(false,
			[]int{at(2, 0)}, []int{at(2, 12)}, []int{at(2, 24)}, []int{at(2, 2000)}, []int{at(3, -17)}, []int{at(3, -16)}, []int{at(3, -1)})},
		{"a bit of the last, shorter block flipped", flips(false, []int{at(5, 0)}, []int{at(5, 30)}, []int{at(5, 49)})},
		{"two blocks swapped", edits(func(b []byte) []byte {
			one := bytes.Clone(b[at(1, 0):at(2, 0)])
			copy(b[at(1, 0):], b[at(2, 0):at(3, 0)])
			copy(b[at(2, 0):], one)
			return b
		})},
		{"a block put in the place of another one of the same file", copyBlock(func(c *tampered) []byte { return c.ciphertext("a") }, 4)},
		{"a block of another file, at the same place", copyBlock(func(c *tampered) []byte { return c.ciphertext("b") }, 2)},
		{"a block put back as it was before", copyBlock(func(c *tampered) []byte { return c.old["a"] }, 2)},
		{"a block zeroed", edits(zero(at(2, 0), at(3, 0)))},
		{"a page of the disk zeroed, in two blocks", edits(zero(3*4096, 4*4096))},
		{"a block zeroed in a file that has holes", editsOf("s", zero(at(2, 0), at(3, 0)))},
	}
}

func sizeAttacks() []attack {
	const whole, last = 1024 + 4136, 1024 + 4136 + 50
	grow := func(b ...byte) func([]byte) []byte { return func(old []byte) []byte { return append(old, b...) } }
	return []attack{
		{"cut inside of the header", cuts(1, 40, 511, 512, 513, 1023)},
		{"cut at any byte behind the header, the ends of blocks among them", cuts(1024, 1025, 1024+40, 1024+41, whole-1, whole, whole+1, whole+40, whole+41, last-1)},
		{"cut to 0 bytes, or to a header of zeros", editsOf("t",
			func([]byte) []byte { return nil }, func([]byte) []byte { return make([]byte, 1024) })},
		{"all of it zeroed", edits(func(b []byte) []byte { return make([]byte, len(b)) })},
		{"extended: by a byte, by zeros, by a block of its own", edits(grow(0), grow(make([]byte, crypto.CipherBlockSize)...),
			func(b []byte) []byte { return append(b, b[at(0, 0):at(1, 0)]...) })},
	}
}

func headerAttacks() []attack {
	header := func(from func(c *tampered) []byte, to string) []func(c *tampered) {
		return way(func(c *tampered) {
			source := from(c)
			c.edit(to, func(b []byte) []byte { copy(b[:1024], source[:1024]); return b })
		})
	}
	wrapped := func(b, from []byte) []byte {
		for _, slot := range []int{0, slotBytes} {
			copy(b[slot+20:slot+sealedPart], from[slot+20:slot+sealedPart])
		}
		return fixChecksums(b)
	}
	both := func(change func(b, other []byte) []byte) []func(c *tampered) {
		return way(func(c *tampered) {
			a, b := c.ciphertext("a"), c.ciphertext("b")
			c.put("a", change(bytes.Clone(a), b))
			c.put("b", change(bytes.Clone(b), a))
		})
	}
	free := []string{"checksum", "sequence", "padding"}
	return []attack{
		{"a bit of any field of the header slot that counts flipped", flips(false, fields(nil, newest)...)},
		{"a bit of any field of the other slot flipped", flips(false, fields(nil, older)...)},
		{"a bit of any field of both slots flipped", flips(false, fields(nil, older, newest)...)},
		{"the same, with right checksums: fields that the key service or the DEK vouches for, and lengths",
			flips(true, fields(slices.Concat(free, []string{"version"}), older, newest)...)},
		{"the same, with right checksums: a higher version", edits(func(b []byte) []byte { b[9], b[slotBytes+9] = 2, 2; return fixChecksums(b) })},
		{"the sequence numbers swapped, so that the slot from before the seal counts", edits(func(b []byte) []byte {
			one := bytes.Clone(b[12:20])
			copy(b[12:20], b[slotBytes+12:slotBytes+20])
			copy(b[slotBytes+12:slotBytes+20], one)
			return fixChecksums(b)
		})},
		{"the slot that counts zeroed, and the file cut at a block", edits(func(b []byte) []byte {
			clear(b[newest : newest+slotBytes])
			return b[:at(3, 0)]
		})},
		{"the slot that counts zeroed, and a block zeroed", edits(func(b []byte) []byte {
			clear(b[newest : newest+slotBytes])
			clear(b[at(3, 0):at(4, 0)])
			return b
		})},
		{"the slot that counts zeroed, and a block changed", edits(func(b []byte) []byte {
			clear(b[newest : newest+slotBytes])
			b[at(3, 100)] ^= 1
			return b
		})},
		{"the header zeroed", edits(func(b []byte) []byte { clear(b[:1024]); return b })},
		{"headers of two files of the same size swapped", both(func(b, other []byte) []byte { copy(b[:1024], other[:1024]); return b })},
		{"wrapped keys of two files swapped, with right checksums", both(wrapped)},
		{"sealed parts of two files swapped, with right checksums", both(func(b, other []byte) []byte {
			for _, slot := range []int{0, slotBytes} {
				copy(b[slot+sealedPart:slot+checksum], other[slot+sealedPart:slot+checksum])
			}
			return fixChecksums(b)
		})},
		{"an older header put back, the size being the same", header(func(c *tampered) []byte { return c.old["a"] }, "a")},
		{"an older header put back, the size being another", header(func(c *tampered) []byte { return c.old["g"] }, "g")},
	}
}

// otherVolumes returns a ciphertext file of a volume whose keys the same key service has, and of one with another's.
func otherVolumes(t *testing.T, r *rig) (same, another []byte) {
	t.Helper()
	var found [][]byte
	for _, kr := range []*keyringtest.Fake{r.kr, keyringtest.NewFake(secret.NewArena(nil))} {
		other := newRig(t, Options{}, func(o *rig) { o.kr = kr })
		other.write("a", pattern(77, tamperedSize))
		stored := other.stored("a")
		other.unmount()
		b, err := os.ReadFile(stored)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, b)
	}
	return found[0], found[1]
}

func wholeFileAttacks(same, another []byte) []attack {
	replace := func(with func(c *tampered) []byte) func(c *tampered) {
		return func(c *tampered) { c.put("a", with(c)) }
	}
	return []attack{
		{"a file of another volume, of the same key service or of another one", []func(c *tampered){
			replace(func(*tampered) []byte { return same }), replace(func(*tampered) []byte { return another })}},
		{"a file that is no ciphertext, under the name of one", way(replace(func(c *tampered) []byte { return pattern(9, 9000) }))},
		{"a whole file put back as it was before", way(replace(func(c *tampered) []byte { return c.old["a"] }))},
		{"two files swapped, or each in the place of the other", []func(c *tampered){
			func(c *tampered) { c.swap("d1/x", "d2/x") },
			func(c *tampered) {
				one, two := c.ciphertext("d1/x"), c.ciphertext("d2/x")
				c.put("d1/x", two)
				c.put("d2/x", one)
			},
		}},
		{"a file replaced by a fifo or a directory", []func(c *tampered){
			func(c *tampered) { c.must(os.Remove(c.paths["t"])); c.must(unix.Mkfifo(c.paths["t"], 0o644)) },
			func(c *tampered) { c.must(os.Remove(c.paths["t"])); c.must(os.Mkdir(c.paths["t"], 0o755)) },
		}},
	}
}

func nameAttacks() []attack {
	rename := func(from string, to func(c *tampered) string) []func(c *tampered) {
		return way(func(c *tampered) { c.must(os.Rename(c.paths[from], to(c))) })
	}
	sidecar := func(c *tampered) string {
		return filepath.Join(filepath.Dir(c.paths[c.long]), crypto.SidecarName(filepath.Base(c.paths[c.long])))
	}
	return []attack{
		{"two directories swapped, with what is in them", way(func(c *tampered) { c.swap("d1", "d2") })},
		{"a file moved to another directory", rename("d1/x", func(c *tampered) string {
			return filepath.Join(filepath.Dir(c.paths["a"]), filepath.Base(c.paths["d1/x"]))
		})},
		{"a file removed", way(func(c *tampered) { c.must(os.Remove(c.paths["t"])) })},
		{"a name changed", rename("t", func(c *tampered) string {
			b := []byte(c.paths["t"])
			b[len(b)-3] ^= 1
			return string(b)
		})},
		{"the sidecar of a long name removed, or filled with another name", []func(c *tampered){
			func(c *tampered) { c.must(os.Remove(sidecar(c))) },
			func(c *tampered) { c.must(os.WriteFile(sidecar(c), []byte("x"), 0o600)) },
		}},
	}
}

func valueAttacks() []attack {
	link := func(target func(c *tampered) string) func(c *tampered) {
		return func(c *tampered) {
			text := target(c)
			c.must(os.Remove(c.paths["l1"]))
			c.must(os.Symlink(text, c.paths["l1"]))
		}
	}
	same := func([]byte) {}
	return []attack{
		{"a link target changed, or written by somebody without the key", []func(c *tampered){
			link(func(c *tampered) string {
				text, err := os.Readlink(c.paths["l1"])
				c.must(err)
				b := []byte(text)
				b[40] ^= 1
				return string(b)
			}),
			link(func(*tampered) string { return "/etc/passwd" }),
		}},
		{"two links swapped", way(func(c *tampered) { c.swap("l1", "l2") })},
		{"the value of an attribute changed, or that of another attribute", []func(c *tampered){
			func(c *tampered) { c.xattr("a", "user.x", "a", "user.x", func(b []byte) { b[30] ^= 1 }) },
			func(c *tampered) { c.xattr("a", "user.y", "a", "user.x", same) },
		}},
		{"the value of the same attribute of another file", way(func(c *tampered) { c.xattr("b", "user.x", "a", "user.x", same) })},
		{"an attribute removed", way(func(c *tampered) { c.must(unix.Removexattr(c.paths["a"], "user.x")) })},
		{"mode or times changed; owner and ACLs are no different", []func(c *tampered){
			func(c *tampered) { c.must(os.Chmod(c.paths["t"], 0o666)) },
			func(c *tampered) {
				times := []unix.Timespec{{Sec: tamperedTime}, {Sec: tamperedTime}}
				c.must(unix.UtimesNanoAt(unix.AT_FDCWD, c.paths["t"], times, 0))
			},
		}},
	}
}
