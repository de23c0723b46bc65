package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

// rekeySurvey is what is found below some paths.
type rekeySurvey struct {
	v *Volume

	mu        sync.Mutex
	files     map[FileKey]*rekeyFile // guarded by mu
	leftovers []string               // paths of temporary files; guarded by mu
	failures  map[string]error       // what could not be looked at, by path; guarded by mu
}

func newRekeySurvey(v *Volume) *rekeySurvey {
	return &rekeySurvey{v: v, files: make(map[FileKey]*rekeyFile), failures: make(map[string]error)}
}

func (s *rekeySurvey) failed(rel string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[rel] = err
}

// survey finds the files to rekey, after clearing away what killed ones have left.
func (r *rekey) survey(ctx context.Context) ([]*rekeyFile, error) {
	s, err := r.lookBelow(ctx, r.Paths)
	if err == nil && len(s.leftovers) > 0 {
		if err = r.clearAway(ctx, s.leftovers); err == nil {
			s, err = r.lookBelow(ctx, r.Paths)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := r.findOtherNames(ctx, s); err != nil {
		return nil, err
	}
	for rel, err := range s.failures {
		r.fail(rel, err)
	}
	var files []*rekeyFile
	for _, f := range s.files {
		slices.Sort(f.names)
		files = append(files, f)
		r.count.files.Add(1)
		r.count.bytes.Add(f.size)
	}
	slices.SortFunc(files, func(a, b *rekeyFile) int { return cmp.Compare(a.names[0], b.names[0]) })
	return files, nil
}

// lookBelow walks the given paths.
func (r *rekey) lookBelow(ctx context.Context, paths []string) (*rekeySurvey, error) {
	s := newRekeySurvey(r.v)
	for _, rel := range paths {
		if err := s.below(ctx, rel); err != nil {
			return nil, fmt.Errorf("%s: %w", rel, err)
		}
	}
	return s, nil
}

// below looks at a file, or at all that is below a directory.
func (s *rekeySurvey) below(ctx context.Context, rel string) error {
	return s.v.at(rel, func(e treeEntry, st *unix.Stat_t) error {
		switch {
		case e.kind == unix.DT_REG && isOwnName(e.name):
			return ErrReservedName
		case e.kind == unix.DT_REG:
			s.add(e.rel, st)
			return nil
		case e.kind != unix.DT_DIR:
			return ErrNotRegular
		}
		t := &tree{store: s.v.store, names: s.v.cfg.Names, visit: s.visit, own: s.own, failed: s.failed}
		return t.below(ctx, e)
	})
}

// at finds the entry at a path below the ciphertext directory, and calls f with it and its attributes. The root, ".", has
// the empty path.
func (v *Volume) at(rel string, f func(e treeEntry, st *unix.Stat_t) error) (err error) {
	rel = path.Clean(filepath.ToSlash(rel))
	if !filepath.IsLocal(rel) {
		return ErrBadPath
	}
	dir, name, err := v.openParent(rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.store.Close(dir)) }()
	var st unix.Stat_t
	if err := v.store.StatAt(dir, name, &st); err != nil {
		return err
	}
	e := treeEntry{dir: dir, name: name, rel: rel, kind: kindOf(&st)}
	if rel == "." {
		e.rel = ""
	} else {
		e.foreign = !couldBeStored(v.cfg.Names, name)
	}
	return f(e, &st)
}

// openParent opens the directory that a path below the ciphertext directory ends in. For the root itself the name is ".".
func (v *Volume) openParent(rel string) (dir int, name string, err error) {
	return openParentBelow(v.store, v.Root(), rel)
}

// openParentBelow opens the directory that a path below the directory root ends in, name by name and without following
// links.
func openParentBelow(store *backing.Store, root int, rel string) (dir int, name string, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	names := strings.Split(rel, "/")
	if dir, err = store.Open(root, ".", flags, 0); err != nil {
		return -1, "", err
	}
	for _, name := range names[:len(names)-1] {
		next, err := store.Open(dir, name, flags, 0)
		_ = store.Close(dir) // only looked through
		if err != nil {
			return -1, "", err
		}
		dir = next
	}
	return dir, names[len(names)-1], nil
}

func (s *rekeySurvey) visit(e treeEntry) (enter bool) {
	if e.foreign {
		return false
	}
	if _, err := s.v.DecodeName(e.dir, e.name); err != nil {
		return false // foreign, as the key says
	}
	if e.kind != unix.DT_REG {
		return true
	}
	var st unix.Stat_t
	if err := s.v.store.StatAt(e.dir, e.name, &st); err != nil {
		s.failed(e.rel, err)
		return false
	}
	s.add(e.rel, &st)
	return false
}

func (s *rekeySurvey) add(rel string, st *unix.Stat_t) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := FileKey{Dev: uint64(st.Dev), Ino: st.Ino}
	f := s.files[key]
	if f == nil {
		f = &rekeyFile{key: key, links: uint64(st.Nlink), size: st.Size}
		s.files[key] = f
	}
	if !slices.Contains(f.names, rel) { // few names, and paths may overlap
		f.names = append(f.names, rel)
	}
}

func (s *rekeySurvey) own(e treeEntry) {
	if strings.HasPrefix(e.name, rekeyPrefix) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leftovers = append(s.leftovers, e.rel)
	}
}

// findOtherNames takes those files out that have names outside of the paths, and says where.
func (r *rekey) findOtherNames(ctx context.Context, s *rekeySurvey) error {
	var all *rekeySurvey
	for key, f := range s.files {
		if uint64(len(f.names)) == f.links {
			continue
		}
		if all == nil {
			var err error
			all = newRekeySurvey(r.v)
			if err = all.below(ctx, "."); err != nil {
				return err
			}
		}
		where := "none of them in this volume"
		if everywhere := all.files[key]; everywhere != nil {
			for _, name := range everywhere.names {
				if !slices.Contains(f.names, name) {
					where = "one is " + name
				}
			}
		}
		slices.Sort(f.names)
		r.count.files.Add(1)
		r.fail(f.names[0], fmt.Errorf("%w outside of the given paths: %d of %d; %s",
			ErrMoreLinks, f.links-uint64(len(f.names)), f.links, where))
		delete(s.files, key)
	}
	return nil
}

// clearAway removes temporary files, and finishes first what those with several names are the middle of.
func (r *rekey) clearAway(ctx context.Context, leftovers []string) error {
	// Links go first, since they count as names.
	slices.SortFunc(leftovers, func(a, b string) int {
		return cmp.Compare(rank(a), rank(b))
	})
	var byID map[crypto.ID][]string
	for _, rel := range leftovers {
		dir, name, err := r.v.openParent(rel)
		if err != nil {
			return err
		}
		err = r.clearOne(ctx, &byID, dir, name)
		if err = errors.Join(err, r.v.store.Close(dir)); err != nil {
			return fmt.Errorf("%s: left by an interrupted rekey: %w", rel, err)
		}
	}
	return nil
}

func rank(rel string) int {
	if strings.HasSuffix(rel, rekeyLink) {
		return 0
	}
	return 1
}

func (r *rekey) clearOne(ctx context.Context, byID *map[crypto.ID][]string, dir int, name string) error {
	var st unix.Stat_t
	if err := r.v.store.StatAt(dir, name, &st); err != nil {
		return err
	}
	var id crypto.ID
	digits := strings.TrimPrefix(name, rekeyPrefix)
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return ErrNotRegular
	case st.Nlink > 1 && decodeHex(id[:], digits) == nil:
		if *byID == nil {
			found, err := r.filesByID(ctx)
			if err != nil {
				return err
			}
			*byID = found
		}
		if err := r.v.relink(dir, name, &st, (*byID)[id]); err != nil {
			return err
		}
	}
	return r.v.store.Unlink(dir, name)
}

// filesByID reads the headers of the whole volume and returns the paths of files by file ID.
func (r *rekey) filesByID(ctx context.Context) (map[crypto.ID][]string, error) {
	s := newRekeySurvey(r.v)
	if err := s.below(ctx, "."); err != nil {
		return nil, err
	}
	byID := make(map[crypto.ID][]string)
	for _, f := range s.files {
		if id, ok := r.v.peekID(f.names[0]); ok {
			byID[id] = append(byID[id], f.names...)
		}
	}
	return byID, nil
}

// peekID returns what the header of a file says its ID is.
func (v *Volume) peekID(rel string) (id crypto.ID, ok bool) {
	dir, name, err := v.openParent(rel)
	if err != nil {
		return id, false
	}
	defer func() { _ = v.store.Close(dir) }() // only read
	fd, err := v.openForWalk(dir, name)
	if err != nil {
		return id, false
	}
	defer func() { _ = v.store.Close(fd) }()
	buf := make([]byte, v.layout.HeaderSize())
	n, err := v.store.ReadAt(fd, buf, 0)
	if err != nil {
		return id, false
	}
	slot, _, err := crypto.NewestSlot(buf[:n], int(v.layout.SlotSize))
	if err != nil {
		return id, false
	}
	h, err := slot.Sealed.Peek()
	return h.File, err == nil
}
