package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// verifyAhead is how many files wait for their keys at most, so that many keys come with one answer of the key service.
const verifyAhead = 512

// ErrNotAlone is returned for a repair of a volume that others may be using.
var ErrNotAlone = errors.New("a repair needs the volume for itself")

// VerifyOptions say what to verify.
type VerifyOptions struct {
	// Paths are files and directories below the ciphertext directory, "." for all of it.
	Paths []string
	// Quick leaves the blocks out: headers, sizes, names, link targets and attributes are verified.
	Quick bool
	// Repair seals files that are whole but unsealed, and moves what cannot be read, and sidecars without an entry, to Quarantine.
	// v must be open for writing, so that no mount has the volume. It excludes Quick.
	Repair bool
	// Quarantine is a directory outside of the volume, on the same file system. It is made when it is needed.
	Quarantine string
	// Found is told of each finding, by one goroutine at a time. Nil: nobody is.
	Found func(Finding)
	// Moved is told where an entry was moved to; rel is its path in the ciphertext directory. Nil: nobody is.
	Moved func(rel, to string)
	// Progress is told how far the work has come, ten times a second and at the end, by one goroutine. Nil: nobody is.
	Progress func(VerifyProgress)
}

// VerifyProgress is how far the work has come, in bytes of ciphertext. Of a quick run, bytes of files whose headers are done.
type VerifyProgress struct {
	Done, Total int64
	Known       bool // Total is final
}

// VerifyCount counts what was verified. A file with several names counts once.
type VerifyCount struct {
	Files       int64 `json:"files"`
	Empty       int64 `json:"empty"` // of Files: without a header
	Directories int64 `json:"directories"`
	Links       int64 `json:"symlinks"`
	Others      int64 `json:"others"` // fifos, sockets, devices
	Attributes  int64 `json:"attributes"`
	Bytes       int64 `json:"ciphertext_bytes"` // read; of a quick run, those of headers
	Damage      int64 `json:"damage"`           // findings, by class
	Notices     int64 `json:"notices"`
	Unchecked   int64 `json:"unchecked"`
	Resealed    int64 `json:"resealed"`
	Quarantined int64 `json:"quarantined"`
	Complete    bool  `json:"complete"` // all that was asked for was looked at
}

// Verify reads all that is below some paths, as a reader would, and reports what is not as envfs wrote it: headers, blocks,
// names, link targets and extended attributes. Without Repair it changes nothing.
//
// v may be open Unlocked, beside a mount. What changes meanwhile is looked at again, until two looks find the same fault in
// a file that did not change between them; see settle.
//
// What is wrong with an entry is told to o.Found and does not stop the others. The error is for the work as a whole, such as
// a key service that does not answer; the result is right in any case.
func (v *Volume) Verify(ctx context.Context, o VerifyOptions) (VerifyCount, error) {
	if o.Repair && (v.pool == nil || o.Quick) {
		return VerifyCount{}, ErrNotAlone
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &verify{
		VerifyOptions: o, v: v, store: v.store, ctx: ctx, stop: stop, links: make(map[FileKey]*linkedFile),
		flight: make(chan struct{}, min(verifyAhead, rewrapGroup())), readers: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
	err := w.run()
	return w.count.snapshot(), err
}

// verify is one run. The tree is walked by several goroutines, which open files and hand each to a goroutine of its own.
// Many of those wait for keys, which are asked for together; as many as the machine has use for read and decrypt.
type verify struct {
	VerifyOptions
	v     *Volume
	store *backing.Store
	ctx   context.Context // ends early after a failure of the work as a whole
	stop  context.CancelFunc
	count verifyCounter

	files   sync.WaitGroup // that are looked at
	flight  chan struct{}  // a token for each of them
	readers chan struct{}  // a token for each goroutine that reads blocks

	failure atomic.Pointer[error] // of the work as a whole; the first one stays
	telling sync.Mutex            // held while Found is called

	mu    sync.Mutex
	links map[FileKey]*linkedFile // files with several names; guarded by mu
	bad   []string                // paths of what goes to the quarantine; guarded by mu
}

// linkedFile is a file with several names.
type linkedFile struct {
	names []string // found so far; guarded by verify.mu
	bad   bool     // it cannot be read; guarded by verify.mu
}

type verifyCounter struct {
	files, empty, directories, links, others, attributes, bytes      atomic.Int64
	damage, notices, unchecked, resealed, quarantined, done, planned atomic.Int64
	complete, known                                                  atomic.Bool
}

func (c *verifyCounter) snapshot() VerifyCount {
	return VerifyCount{
		Files: c.files.Load(), Empty: c.empty.Load(), Directories: c.directories.Load(), Links: c.links.Load(),
		Others: c.others.Load(), Attributes: c.attributes.Load(), Bytes: c.bytes.Load(), Damage: c.damage.Load(),
		Notices: c.notices.Load(), Unchecked: c.unchecked.Load(), Resealed: c.resealed.Load(),
		Quarantined: c.quarantined.Load(), Complete: c.complete.Load(),
	}
}

func (w *verify) run() error {
	var q *quarantine
	if w.Repair {
		var err error
		if q, err = w.openQuarantine(); err != nil {
			return err
		}
	}
	defer w.report()()
	err := w.lookAround()
	w.files.Wait()
	if failure := w.failure.Load(); failure != nil {
		return *failure
	}
	if err = cmp.Or(err, w.ctx.Err()); err != nil {
		return err
	}
	w.count.complete.Store(true)
	if !w.Repair {
		return nil
	}
	return w.finish(q)
}

// lookAround looks at all paths.
func (w *verify) lookAround() error {
	for _, rel := range w.Paths {
		if err := w.v.at(rel, w.at); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	return nil
}

// at looks at an entry and at all below it.
func (w *verify) at(e treeEntry, _ *unix.Stat_t) error {
	t := &tree{store: w.store, names: w.v.cfg.Names, visit: w.visit, own: w.own, failed: w.unreadable}
	switch {
	case e.rel == "":
		w.attributes(backing.Target{FD: e.dir}, e)
	case isOwnName(e.name):
		w.own(e)
		return nil
	case !w.visit(e):
		return nil
	}
	if e.kind != unix.DT_DIR {
		return nil
	}
	return t.below(w.ctx, e)
}

// fail ends the work as a whole.
func (w *verify) fail(err error) {
	w.failure.CompareAndSwap(nil, &err)
	w.stop()
}

// report tells Progress until the result is called, and counts meanwhile how much there is to do.
func (w *verify) report() (done func()) {
	if w.Progress == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(w.ctx)
	var counting sync.WaitGroup
	counting.Go(func() { w.plan(ctx) })
	told := reportProgress(w.Progress, func() VerifyProgress {
		return VerifyProgress{w.count.done.Load(), w.count.planned.Load(), w.count.known.Load()}
	})
	return func() {
		stop()
		counting.Wait()
		told()
	}
}

// plan adds up the sizes of files. What it cannot look at, the verification reports.
func (w *verify) plan(ctx context.Context) {
	add := func(e treeEntry) bool {
		var st unix.Stat_t
		if e.kind == unix.DT_REG && w.store.StatAt(e.dir, e.name, &st) == nil {
			w.count.planned.Add(st.Size)
		}
		return !e.foreign
	}
	for _, rel := range w.Paths {
		err := w.v.at(rel, func(e treeEntry, _ *unix.Stat_t) error {
			if e.kind != unix.DT_DIR {
				add(e)
				return nil
			}
			return (&tree{store: w.store, names: w.v.cfg.Names, visit: add}).below(ctx, e)
		})
		if err != nil {
			return
		}
	}
	w.count.known.Store(true)
}

// mark remembers what goes to the quarantine.
func (w *verify) mark(rel string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, rel)
}

// entriesToMove returns the paths of all that goes to the quarantine, sorted: what is below a directory follows it.
func (w *verify) entriesToMove() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad := slices.Clone(w.bad)
	for _, f := range w.links {
		if f.bad {
			bad = append(bad, f.names...)
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}
