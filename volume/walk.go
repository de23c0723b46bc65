package volume

import (
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// maxWalkEntries bounds the entries of one directory that a walk remembers. What lies behind is not fetched ahead.
const maxWalkEntries = 100_000

// maxWalkDepth bounds the directories that a walk holds open.
const maxWalkDepth = 64

// walk goes through the backing tree, depth first, from a file on. It never leaves the volume and follows no symbolic link.
type walk struct {
	v      *Volume
	order  walkOrder
	frames []frame // the directory being read last; those above it before
}

// walkOrder is how a walk goes through a directory.
type walkOrder int

const (
	asListed walkOrder = iota // tar, grep -r
	byInode                   // cp
	byName                    // that applications see: shells, many backup programs
)

// frame is one directory of a walk.
type frame struct {
	fd      int
	entries []walkEntry
	at      int // the next entry to look at
}

type walkEntry struct {
	name string
	ino  uint64
	kind byte // DT_REG, DT_DIR, …
}

// newWalk starts behind the entry called after in the directory dir, which it opens anew.
func (v *Volume) newWalk(dir int, after string) (*walk, error) {
	w := &walk{v: v}
	if err := w.enter(dir, ".", func(e walkEntry) bool { return e.name == after }); err != nil {
		return nil, err
	}
	return w, nil
}

// follow finds out in which order somebody goes who opens last and then next in the directory that the walk stands in: the one
// in which they stand closest to each other. The walk goes on behind next in that order. It reports false if there is none.
func (w *walk) follow(last, next string) bool {
	f := &w.frames[len(w.frames)-1]
	if indexOf(f.entries, last) < 0 {
		return true // it has gone meanwhile
	}
	listed := indexOf(f.entries, next) - indexOf(f.entries, last)
	nearest := prefetchFirst + 1 // what is further away would not be fetched by the first request
	if listed > 0 {
		nearest = min(nearest, listed)
	}
	entries, order := f.entries, asListed
	for _, o := range []walkOrder{byInode, byName} {
		if nearest == 1 {
			break
		}
		sorted := w.v.arrange(f.fd, slices.Clone(f.entries), o)
		if steps := indexOf(sorted, next) - indexOf(sorted, last); steps > 0 && steps < nearest {
			entries, order, nearest = sorted, o, steps
		}
	}
	w.order = order
	f.entries, f.at = entries, indexOf(entries, next)+1
	return order != asListed || listed > 0
}

func indexOf(entries []walkEntry, name string) int {
	return slices.IndexFunc(entries, func(e walkEntry) bool { return e.name == name })
}

// arrange sorts the entries of a directory, which it may overwrite.
func (v *Volume) arrange(dir int, entries []walkEntry, order walkOrder) []walkEntry {
	switch order {
	case byInode:
		slices.SortFunc(entries, func(a, b walkEntry) int { return cmp.Compare(a.ino, b.ino) })
	case byName:
		shown := make(map[string]string, len(entries))
		for _, e := range entries {
			shown[e.name], _ = v.DecodeName(dir, e.name) // one that is hidden has none, and comes first
		}
		slices.SortFunc(entries, func(a, b walkEntry) int { return cmp.Compare(shown[a.name], shown[b.name]) })
	}
	return entries
}

// rewind goes back to the beginning of that directory.
func (w *walk) rewind() { w.frames[len(w.frames)-1].at = 0 }

// enter opens the directory called name in dir and reads its entries. With a match the walk goes on behind the matching entry.
func (w *walk) enter(dir int, name string, match func(walkEntry) bool) error {
	fd, err := w.v.store.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	entries, err := w.v.readEntries(fd)
	if err != nil {
		return errors.Join(err, w.v.store.Close(fd))
	}
	f := frame{fd: fd, entries: w.v.arrange(fd, entries, w.order)}
	if match != nil {
		for f.at < len(f.entries) && !match(f.entries[f.at]) {
			f.at++
		}
		f.at = min(f.at+1, len(f.entries))
	}
	w.frames = append(w.frames, f)
	return nil
}

// next returns the identity and wrapped key of the next file; the key is "" for an entry that has none. The error is io.EOF
// at the end of the volume.
func (w *walk) next() (FileKey, keyring.Wrapped, error) {
	for {
		f := &w.frames[len(w.frames)-1]
		if f.at == len(f.entries) {
			if err := w.leave(); err != nil {
				return FileKey{}, "", err
			}
			continue
		}
		e := f.entries[f.at]
		f.at++
		switch {
		case e.kind == unix.DT_DIR && len(w.frames) < maxWalkDepth:
			// One that has gone meanwhile, or may not be read, is passed over.
			_ = w.enter(f.fd, e.name, nil)
		case e.kind == unix.DT_REG && !crypto.IsSidecar(e.name):
			return w.look(f.fd, e.name)
		}
	}
}

func (w *walk) look(dir int, name string) (key FileKey, wrapped keyring.Wrapped, err error) {
	fd, err := w.v.openForWalk(dir, name)
	if err != nil {
		return FileKey{}, "", nil // gone, or not ours to read: the walk goes on
	}
	defer func() { err = errors.Join(err, w.v.store.Close(fd)) }()
	var st unix.Stat_t
	if err := w.v.store.Stat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return FileKey{}, "", err
	}
	return FileKey{Dev: uint64(st.Dev), Ino: st.Ino}, w.v.wrappedIn(fd), nil
}

// leave goes on in the directory above, behind the one that has been read to its end.
func (w *walk) leave() error {
	last := w.frames[len(w.frames)-1]
	if len(w.frames) > 1 {
		w.frames = w.frames[:len(w.frames)-1]
		return w.v.store.Close(last.fd)
	}
	var st, root unix.Stat_t
	if err := w.v.store.Stat(last.fd, &st); err != nil {
		return err
	}
	if err := w.v.store.Stat(w.v.Root(), &root); err != nil {
		return err
	}
	if st.Ino == root.Ino && st.Dev == root.Dev {
		return io.EOF
	}
	w.frames = w.frames[:0]
	err := w.enter(last.fd, "..", func(e walkEntry) bool { return e.ino == st.Ino })
	if err != nil {
		w.frames = append(w.frames, last)
		return err
	}
	return w.v.store.Close(last.fd)
}

func (w *walk) close() {
	for _, f := range w.frames {
		if err := w.v.store.Close(f.fd); err != nil {
			w.v.log.Debug("closing a directory reported an error", "error", err)
		}
	}
	w.frames = nil
}

// readEntries returns the entries of a directory that was just opened, without "." and "..".
func (v *Volume) readEntries(fd int) ([]walkEntry, error) {
	var entries []walkEntry
	buf := make([]byte, 32<<10)
	for len(entries) < maxWalkEntries {
		n, err := v.store.ReadDir(fd, buf)
		if err != nil || n == 0 {
			return entries, err
		}
		for rest := buf[:n]; len(rest) > 0; {
			e, size := parseEntry(rest)
			rest = rest[size:]
			if e.name != "." && e.name != ".." {
				entries = append(entries, e)
			}
		}
	}
	return entries, nil
}

// parseEntry reads one record of getdents64(2): inode number (8 bytes), offset (8), record length (2), kind (1), name, NUL.
func parseEntry(b []byte) (walkEntry, int) {
	size := int(binary.NativeEndian.Uint16(b[16:]))
	name := b[19:size]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	return walkEntry{ino: binary.NativeEndian.Uint64(b), kind: b[18], name: string(name)}, size
}
