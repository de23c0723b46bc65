package powercut

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Violation says which of these rules does not hold after a power cut, and where:
//
//  1. What a program had synced reads back exactly: a file after its fsync, a name after the fsync of its directory.
//  2. Each block that was being written holds the bytes of before or after one of the writes.
//  3. Every file opens, unless its creation was never synced.
//  4. Every directory lists, and every entry can be removed.
//  5. The next mount needs no manual step.
type Violation struct {
	Rule int
	Text string
}

func (v Violation) String() string { return fmt.Sprintf("rule %d: %s", v.Rule, v.Text) }

// Guarantee is what a file system says of blocks that were being written.
type Guarantee struct {
	// Block is the size of a block in bytes. Each holds what it held before or after one of the writes.
	Block int64
	// NewMayBeShort excepts the size of a file that ends in a block without any byte that had been synced: it may end at any
	// byte of it. What is there is the new bytes, or zeros.
	NewMayBeShort bool
	// WholeMayTear excepts blocks that are overwritten as a whole: they may be unreadable.
	WholeMayTear bool
}

// Check compares the file system that dir shows after a power cut at an instant with what the script was promised, and then
// removes everything.
func (s *Script) Check(dir string, at int, g Guarantee) []Violation {
	seen, found := find(dir, g.Block)
	found = append(found, s.promise(at, g).check(seen)...)
	return append(found, removeAll(dir)...)
}

// check compares with each state of names that may be there, and returns what is wrong with the one that fits best.
func (p *promise) check(seen *foundDir) (best []Violation) {
	for i := len(p.trees) - 1; i >= 0; i-- {
		found := p.checkDir(p.trees[i], root, seen, ".")
		if len(found) == 0 {
			return nil
		}
		if best == nil || len(found) < len(best) {
			best = found
		}
	}
	return best
}

func (p *promise) checkDir(t *tree, dir nodeID, seen *foundDir, path string) (found []Violation) {
	for _, name := range slices.Sorted(maps.Keys(t.dirs[dir])) {
		at := filepath.Join(path, name)
		entry, ok := seen.entries[name]
		if !ok {
			found = append(found, Violation{1, at + ": is gone"})
			continue
		}
		found = append(found, p.checkEntry(t, t.dirs[dir][name], entry, at)...)
	}
	for _, name := range slices.Sorted(maps.Keys(seen.entries)) {
		if _, ok := t.dirs[dir][name]; !ok {
			found = append(found, Violation{1, filepath.Join(path, name) + ": must not be there"})
		}
	}
	return found
}

func (p *promise) checkEntry(t *tree, id nodeID, entry any, path string) (found []Violation) {
	n := p.log.nodes[id]
	switch entry := entry.(type) {
	case *foundDir:
		if n.kind == unix.S_IFDIR {
			return p.checkDir(t, id, entry, path)
		}
	case *foundFile:
		if n.kind == unix.S_IFREG {
			for _, v := range p.checkFile(id, entry) {
				found = append(found, Violation{v.Rule, path + ": " + v.Text})
			}
			return found
		}
	case foundLink:
		if n.kind == unix.S_IFLNK && string(entry) == n.target {
			return nil
		}
	}
	return []Violation{{1, fmt.Sprintf("%s: is something else", path)}}
}

// What is found after a power cut. An entry is a *foundDir, a *foundFile or a foundLink.
type (
	foundDir  struct{ entries map[string]any }
	foundLink string
	foundFile struct {
		err    error // of open, or of the first look at the size
		size   int64
		blocks []foundBlock
	}
	foundBlock struct {
		data []byte
		err  error
	}
)

// find reads a whole tree.
func find(dir string, block int64) (*foundDir, []Violation) {
	d := &foundDir{entries: map[string]any{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return d, []Violation{{4, "cannot be listed: " + err.Error()}}
	}
	var found []Violation
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			sub, wrong := find(path, block)
			d.entries[e.Name()] = sub
			found = append(found, wrong...)
		case e.Type() == os.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				found = append(found, Violation{1, "link cannot be read: " + err.Error()})
			}
			d.entries[e.Name()] = foundLink(target)
		default:
			d.entries[e.Name()] = findFile(path, block)
		}
	}
	return d, found
}

func findFile(path string, block int64) *foundFile {
	f, err := os.Open(path)
	if err != nil {
		return &foundFile{err: err}
	}
	defer f.Close() // only read from
	st, err := f.Stat()
	if err != nil {
		return &foundFile{err: err}
	}
	found := &foundFile{size: st.Size()}
	for off := int64(0); off < found.size; off += block {
		data := make([]byte, min(block, found.size-off))
		n, err := f.ReadAt(data, off)
		if err == nil && n < len(data) {
			err = io.ErrUnexpectedEOF
		}
		found.blocks = append(found.blocks, foundBlock{data: data, err: err})
	}
	return found
}

// ListAndRemove checks that every directory below dir can be listed and every entry removed, and does so.
func ListAndRemove(dir string) []Violation {
	_, found := find(dir, pageSize)
	return append(found, removeAll(dir)...)
}

// removeAll removes what is in dir.
func removeAll(dir string) (found []Violation) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []Violation{{4, err.Error()}}
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			found = append(found, Violation{4, err.Error()})
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		found = append(found, Violation{4, fmt.Sprintf("%d entries are left after all were removed", len(left))})
	}
	return found
}

// Errors joins violations to one error, which is nil if there are none.
func Errors(found []Violation) error {
	var errs []error
	for _, v := range found {
		errs = append(errs, errors.New(v.String()))
	}
	return errors.Join(errs...)
}
