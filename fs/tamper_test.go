package fs

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// The table of doc/security.md stands between these lines. ENVFS_UPDATE=1 makes TestTampering write it.
const (
	tamperDoc   = "../doc/security.md"
	tamperBegin = "<!-- Made by TestTampering in package fs: ENVFS_UPDATE=1 go test ./fs -run TestTampering -->\n"
	tamperEnd   = "<!-- End of what TestTampering made. -->\n"
)

// undetected begins the outcome of an attack that a reader does not notice.
const undetected = "**not detected**"

// attack is a row of the table: something that somebody does who can write the ciphertext.
type attack struct {
	name string
	// ways are different ways to do it, with the same outcome. Each gets files of its own.
	ways []func(c *tampered)
}

// outcome is what becomes of an attack.
type outcome struct{ reader, verify string }

// tampered is one directory of a volume, with something of each kind in it, for one way of an attack. Two files have had an
// older version: in a, blocks 2 and 3 were other ones, and g was shorter.
type tampered struct {
	r     *rig
	dir   string            // plaintext path
	long  string            // a name that needs a sidecar
	paths map[string]string // of ciphertexts, by plaintext path below dir
	now   map[string][]byte // plaintext of files
	then  map[string][]byte // plaintext of their older versions
	old   map[string][]byte // ciphertext of those
	left  map[string][]byte // ciphertext as the attack has left it
}

const (
	tamperedBlocks = 5
	tamperedSize   = tamperedBlocks*block + 10
)

// at is the offset of a byte of a block in the ciphertext.
func at(b, i int) int { return 1024 + b*crypto.CipherBlockSize + i }

// TestTampering makes the table of attacks: it does each of them to real ciphertext, reads what is left through a mount, has
// it verified, and compares what is seen with the table in doc/security.md.
func TestTampering(t *testing.T) {
	var table strings.Builder
	table.WriteString("\n| attack | what a reader sees | what `envfs verify` says |\n|---|---|---|\n")
	for _, row := range slices.Concat(fileRows(t), configRows(t), journalRows(t)) {
		table.WriteString(row)
	}
	table.WriteString("\n")
	doc, err := os.ReadFile(tamperDoc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, found := strings.Cut(string(doc), tamperBegin)
	shown, tail, closed := strings.Cut(rest, tamperEnd)
	if !found || !closed {
		t.Fatalf("%s has no place for the table", tamperDoc)
	}
	if shown == table.String() {
		return
	}
	if os.Getenv("ENVFS_UPDATE") == "" {
		t.Errorf("%s shows another table than what was seen:\n%s", tamperDoc, firstDifferentRow(shown, table.String()))
		return
	}
	if err := os.WriteFile(tamperDoc, []byte(head+tamperBegin+table.String()+tamperEnd+tail), 0o644); err != nil {
		t.Error(err)
	}
}

func firstDifferentRow(shown, seen string) string {
	a, b := strings.Split(shown, "\n"), strings.Split(seen, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "it shows " + a[i] + "\nseen was " + b[i]
		}
	}
	return fmt.Sprintf("it has %d lines, not %d", len(a), len(b))
}

// rowOf renders a row.
func rowOf(name string, o outcome) string {
	return fmt.Sprintf("| %s | %s | %s |\n", name, o.reader, o.verify)
}

// fileRows does all attacks on what is in a volume at once, each in a directory of its own.
func fileRows(t *testing.T) []string {
	r := newRig(t, Options{})
	attacks := fileAttacks(t, r)
	cases := make([][]*tampered, len(attacks))
	var all []*tampered
	for i, a := range attacks {
		for j := range a.ways {
			c := &tampered{r: r, dir: fmt.Sprintf("%03d-%02d", i, j), long: strings.Repeat("long", 60)}
			cases[i] = append(cases[i], c)
			all = append(all, c)
		}
	}
	each := func(f func(c *tampered)) {
		for _, c := range all {
			f(c)
		}
	}
	each((*tampered).make)
	r.remount() // which seals
	each((*tampered).keepOld)
	each((*tampered).changeContent)
	r.remount()
	each((*tampered).check)
	r.unmount()
	for i, a := range attacks {
		for j, way := range a.ways {
			way(cases[i][j])
		}
	}
	said := verifyDirs(t, r)
	each((*tampered).keepLeft)
	r.mount()
	var rows []string
	for i, a := range attacks {
		var seen []outcome
		for _, c := range cases[i] {
			o := outcome{reader: c.observe(), verify: said[c.dir]}
			if o.verify == "" {
				o.verify = "nothing"
			}
			if !slices.Contains(seen, o) {
				seen = append(seen, o)
			}
		}
		if len(seen) != 1 {
			t.Errorf("%s: the ways to do it have different outcomes: %q", a.name, seen)
		}
		rows = append(rows, rowOf(a.name, seen[0]))
	}
	r.unmount()
	each((*tampered).checkLeft)
	return rows
}

// verifyDirs verifies the volume and returns what is found in each directory.
func verifyDirs(t *testing.T, r *rig) map[string]string {
	t.Helper()
	cfg, err := volume.ReadConfig(r.cipher)
	if err != nil {
		t.Fatal(err)
	}
	o := r.open
	o.ReadOnly, o.Unlocked = true, true
	v, err := volume.Open(t.Context(), r.cipher, cfg, r.kr, o)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	_, err = v.Verify(t.Context(), volume.VerifyOptions{Paths: []string{"."}, Found: func(f volume.Finding) {
		text := fmt.Sprintf("%s: `%s`", f.Class, f.Kind)
		if f.Block != nil && f.Blocks > 1 {
			text += fmt.Sprintf(" %d to %d", *f.Block, *f.Block+f.Blocks-1)
		} else if f.Block != nil {
			text += fmt.Sprintf(" %d", *f.Block)
		}
		dir, _, _ := strings.Cut(f.Plaintext, "/")
		if !slices.Contains(found[dir], text) {
			found[dir] = append(found[dir], text)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	said := map[string]string{}
	for dir, texts := range found {
		slices.Sort(texts)
		said[dir] = strings.Join(texts, ", ")
	}
	return said
}

// make makes the directory, in its older version.
func (c *tampered) make() {
	r := c.r
	seed := uint64(len(c.dir))
	for i := range len(c.dir) {
		seed = seed*31 + uint64(c.dir[i])
	}
	c.then = map[string][]byte{
		"a": pattern(seed, tamperedSize), "b": pattern(seed+1, tamperedSize), "g": pattern(seed+2, 2*block),
		"s": slices.Concat(pattern(seed+3, block), make([]byte, block), pattern(seed+4, 2*block)),
		"t": pattern(seed+5, block+10), "d1/x": pattern(seed+6, 100), "d2/x": pattern(seed+7, 100), c.long: pattern(seed+8, 100),
	}
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	for _, dir := range []string{"", "d1", "d2"} {
		must(os.Mkdir(c.clear(dir), 0o755))
	}
	for name, content := range c.then {
		if name != "s" {
			r.write(path.Join(c.dir, name), content)
		}
	}
	f, err := os.OpenFile(c.clear("s"), os.O_WRONLY|os.O_CREATE, 0o644)
	must(err)
	for _, i := range []int{0, 2, 3} {
		_, err := f.WriteAt(c.then["s"][i*block:(i+1)*block], int64(i*block))
		must(err)
	}
	must(f.Close())
	must(os.Symlink("target/one", c.clear("l1")))
	must(os.Symlink("target/two", c.clear("l2")))
	must(unix.Setxattr(c.clear("a"), "user.x", []byte("one"), 0))
	must(unix.Setxattr(c.clear("a"), "user.y", []byte("two"), 0))
	must(unix.Setxattr(c.clear("b"), "user.x", []byte("three"), 0))
}

func (c *tampered) clear(name string) string { return c.r.path(path.Join(c.dir, name)) }

// keepOld keeps the ciphertext of the older version.
func (c *tampered) keepOld() {
	c.paths = map[string]string{}
	for _, name := range []string{"a", "b", "g", "s", "t", "d1", "d2", "d1/x", "d2/x", "l1", "l2", c.long} {
		c.paths[name] = c.r.stored(path.Join(c.dir, name))
	}
	c.old = c.ciphertexts()
}

// ciphertexts reads all regular files that are still in their places.
func (c *tampered) ciphertexts() map[string][]byte {
	all := map[string][]byte{}
	for name := range c.then {
		if st, err := os.Lstat(c.paths[name]); err != nil || !st.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(c.paths[name])
		c.must(err)
		all[name] = b
	}
	return all
}

// changeContent makes the version that is there when the attack comes.
func (c *tampered) changeContent() {
	c.now = map[string][]byte{}
	for name, content := range c.then {
		c.now[name] = bytes.Clone(content)
	}
	copy(c.now["a"][2*block:4*block], pattern(uint64(c.now["a"][0])+1000, 2*block))
	c.now["g"] = append(c.now["g"], pattern(uint64(c.now["g"][0])+2000, 2*block)...)
	for name, off := range map[string]int{"a": 2 * block, "g": 2 * block} {
		f, err := os.OpenFile(c.clear(name), os.O_WRONLY, 0)
		if err != nil {
			c.r.t.Fatal(err)
		}
		if _, err := f.WriteAt(c.now[name][off:off+2*block], int64(off)); err != nil {
			c.r.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			c.r.t.Fatal(err)
		}
	}
}

// check makes sure that all is well before the attack: the observation itself must see nothing.
func (c *tampered) check() {
	if seen := c.observe(); seen != asBefore {
		c.r.t.Fatalf("%s: before anything was done: %s", c.dir, seen)
	}
}

func (c *tampered) keepLeft() { c.left = c.ciphertexts() }

// checkLeft makes sure that nothing was written to what was read, or could not be.
func (c *tampered) checkLeft() {
	for name, now := range c.ciphertexts() {
		if !bytes.Equal(now, c.left[name]) {
			c.r.t.Errorf("%s/%s: the ciphertext was changed by a reader", c.dir, name)
		}
	}
}
