package volume

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

const (
	// treeWorkers is how many directories and runs of files are looked at side by side: disks answer many at once.
	treeWorkers = 8
	// treeRun is how many entries of a directory one goroutine takes at a time.
	treeRun = 256
)

// tree goes through a ciphertext directory, or a part of it, in no particular order and several entries at a time, without
// any key. It follows no symbolic link and never leaves the directory, whose own bookkeeping is no entry. It differs from
// walk, which goes in one reader's order, forgives everything, and may forget what lies too far ahead.
//
// A directory is open as long as something below it is looked at, so as many descriptors are in use as the tree is deep,
// for each worker.
type tree struct {
	store *backing.Store
	names NameMode
	// visit is called for each entry but the root, from several goroutines at once. What it returns for a directory says
	// whether to go into it.
	visit func(e treeEntry) (enter bool)
	// own is called for the bookkeeping in it, which visit does not see; nil: nobody is.
	own func(e treeEntry)
	// failed is told of what could not be looked at; nil: nobody is. It is called from several goroutines at once.
	failed func(rel string, err error)

	workers chan struct{} // a token for each goroutine beside the first
	busy    sync.WaitGroup
}

// treeEntry is one entry of the ciphertext directory.
type treeEntry struct {
	dir  int    // descriptor of the directory it is in, during the visit
	name string // its stored name
	rel  string // its path below the root
	kind byte   // DT_REG, DT_DIR, …
	ino  uint64 // its inode number as the directory says
	// foreign: no volume key can have made the name.
	foreign bool
}

// walk visits all below the directory that fd is. rel is its path below the root of the volume. It returns when all is done,
// or ctx has ended, whose error it returns.
func (t *tree) walk(ctx context.Context, fd int, rel string) error {
	t.workers = make(chan struct{}, treeWorkers-1)
	t.busy.Go(func() { t.directory(ctx, fd, ".", rel) })
	t.busy.Wait()
	return ctx.Err()
}

// below visits all below a directory.
func (t *tree) below(ctx context.Context, e treeEntry) (err error) {
	fd, err := t.store.Open(e.dir, e.name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.store.Close(fd)) }()
	return t.walk(ctx, fd, e.rel)
}

// directory visits what is in the directory called name in dir.
func (t *tree) directory(ctx context.Context, dir int, name, rel string) {
	fd, err := t.store.Open(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.fail("open", rel, err)
		return
	}
	var inside sync.WaitGroup // what uses fd, this goroutine included
	inside.Add(1)
	err = t.entries(ctx, fd, func(run []walkEntry) {
		t.spawn(&inside, func() {
			for _, e := range run {
				if ctx.Err() != nil {
					return
				}
				t.entry(ctx, fd, path.Join(rel, e.name), e, &inside)
			}
		})
	})
	if err != nil {
		t.fail("read", rel, err)
	}
	inside.Done()
	// The descriptor is closed when nothing uses it any more; this goroutine has other things to do.
	t.busy.Go(func() {
		inside.Wait()
		if err := t.store.Close(fd); err != nil {
			t.fail("close", rel, err)
		}
	})
}

// spawn runs f in a goroutine of its own if one is free, and else at once.
func (t *tree) spawn(group *sync.WaitGroup, f func()) {
	select {
	case t.workers <- struct{}{}:
		group.Go(func() {
			defer func() { <-t.workers }()
			f()
		})
	default:
		f()
	}
}

// entries reads a directory that was just opened and hands its entries on in runs.
func (t *tree) entries(ctx context.Context, fd int, each func(run []walkEntry)) error {
	buf := make([]byte, 32<<10)
	var run []walkEntry
	for ctx.Err() == nil {
		n, err := t.store.ReadDir(fd, buf)
		if err != nil {
			return err
		}
		for rest := buf[:n]; len(rest) > 0; {
			e, size := parseEntry(rest)
			rest = rest[size:]
			if e.name != "." && e.name != ".." {
				run = append(run, e)
			}
		}
		if len(run) >= treeRun || n == 0 {
			each(run)
			run = nil
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}

func (t *tree) entry(ctx context.Context, dir int, rel string, e walkEntry, inside *sync.WaitGroup) {
	if isOwnName(e.name) {
		if t.own != nil {
			t.own(treeEntry{dir: dir, name: e.name, rel: rel, kind: e.kind})
		}
		return
	}
	kind := e.kind
	if kind == unix.DT_UNKNOWN { // file systems that do not tell
		var st unix.Stat_t
		if err := t.store.StatAt(dir, e.name, &st); err != nil {
			t.fail("stat", rel, err)
			return
		}
		kind = kindOf(&st)
	}
	enter := t.visit(treeEntry{dir: dir, name: e.name, rel: rel, kind: kind, ino: e.ino, foreign: !couldBeStored(t.names, e.name)})
	if enter && kind == unix.DT_DIR {
		t.spawn(inside, func() { t.directory(ctx, dir, e.name, rel) })
	}
}

// fail reports what could not be looked at. A tree in use changes while it is walked: what is gone is no failure.
func (t *tree) fail(op, rel string, err error) {
	if t.failed != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
		t.failed(rel, &fs.PathError{Op: op, Path: rel, Err: err})
	}
}

// kindOf returns the type of a file as a directory has it (DT_REG, …).
func kindOf(st *unix.Stat_t) byte { return byte(st.Mode & unix.S_IFMT >> 12) }

// couldBeStored says whether name has the form of a stored name; only the volume key could say more.
func couldBeStored(names NameMode, name string) bool {
	const shortest = 23 // base64url of a tag of 16 bytes and one byte
	if names == NamesPlaintext || crypto.IsLong(name) {
		return true
	}
	return len(name) >= shortest && onlyBytes(name, letters+"-_")
}
