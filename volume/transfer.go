package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// A transfer copies a file or a tree from a plain directory into a volume, or out of it, without FUSE. One goroutine walks
// the source and makes the directories; what else it finds goes on in batches. Of a batch the keys are asked for at once,
// the files are copied side by side under temporary names, made durable together, and only then given their names. So
// whatever ends a transfer, there is nothing under a final name that is not whole.
//
// At the end come the further names of files with hard links, and the attributes of directories, deepest first, because
// everything made in a directory changes its times.
//
// Both ends are only ever reached by descriptor and name, and no symbolic link is followed.
const (
	// transferFiles, transferBytes and transferDirs bound a batch: the keys asked for at once, what is not durable yet, and
	// the directories held open.
	transferFiles = 512
	transferBytes = 256 << 20
	transferDirs  = 128
)

// Why an entry is not copied. None of them is damage.
var (
	// ErrInsideVolume: the plaintext would lie in the ciphertext directory, or is it.
	ErrInsideVolume = errors.New("is in the ciphertext directory")
	// ErrDestinationExists: Force is not set, or it is a directory.
	ErrDestinationExists = fmt.Errorf("at the destination: %w", unix.EEXIST)
	// ErrOtherNameFailed: it is a hard link to a file that could not be copied.
	ErrOtherNameFailed = errors.New("a hard link to a file that was not copied")
)

// TransferOptions are what Export and Import have in common.
type TransferOptions struct {
	// Force replaces files that are there. Directories are merged in any case, but get the attributes of the source only
	// with Force if they were there.
	Force bool
	// Failed is told of each entry that was not copied, or not with all that belongs to it, by its path at the source. It is
	// called from several goroutines at once. Nil: nobody is told.
	Failed func(path string, err error)
	// Progress is told how far the work has come, ten times a second and at the end, by one goroutine. Nil: nobody is.
	Progress func(TransferCount)
}

// TransferCount says what was copied.
type TransferCount struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	Symlinks    int64 `json:"symlinks"`
	Special     int64 `json:"special_files"` // fifos, sockets and device nodes
	Links       int64 `json:"hard_links"`    // further names of what is counted above
	Bytes       int64 `json:"bytes"`         // plaintext of Files, holes included
	Failed      int64 `json:"failed"`        // entries, those copied with a flaw included
	Foreign     int64 `json:"foreign"`       // entries of the ciphertext directory that no volume has made
	OwnersLost  int64 `json:"owners_lost"`   // entries that belong to somebody else now: this process may not give files away

	Found    int64 `json:"-"` // bytes at the source, as far as it was walked
	Done     int64 `json:"-"` // of Found
	Complete bool  `json:"-"` // the source was walked to its end
}

type transferCounter struct {
	files, directories, symlinks, special, links, bytes, failed, foreign, ownersLost, found, done atomic.Int64

	complete atomic.Bool
}

func (c *transferCounter) snapshot() TransferCount {
	return TransferCount{
		Files: c.files.Load(), Directories: c.directories.Load(), Symlinks: c.symlinks.Load(), Special: c.special.Load(),
		Links: c.links.Load(), Bytes: c.bytes.Load(), Failed: c.failed.Load(), Foreign: c.foreign.Load(),
		OwnersLost: c.ownersLost.Load(), Done: c.done.Load(), Found: c.found.Load(), Complete: c.complete.Load(),
	}
}

// transfer is one run.
type transfer struct {
	TransferOptions
	v    *Volume
	from transferSource
	to   transferSink
	lost func(LostContent) // told what salvaging a file has made zeros; nil: nobody is

	count  transferCounter
	volume FileKey // the ciphertext directory, which is not entered from outside
	// root is the directory at the destination that the paths in links and finished start from.
	root int

	batch    *transferBatch              // being filled by the walk
	origins  map[FileKey]*transferOrigin // files with several names; belongs to the walk, and to its end
	links    []transferLink              // further names; likewise
	finished []*transferDone             // directories, parents first; likewise
	batches  chan *transferBatch
}

// transferBatch is what is copied side by side.
type transferBatch struct {
	jobs  []*transferJob
	bytes int64
	dirs  map[*transferDir]bool
}

// transferOrigin is a file with several names, by the one that it is copied under.
type transferOrigin struct {
	dst  string // path below transfer.root
	done bool   // it was copied; set before the links are made
}

// transferLink is a further name of an origin.
type transferLink struct {
	origin *transferOrigin
	src    string // path at the source, for messages
	dst    string // path below transfer.root
	name   Name
}

// transferDone is a directory whose content is copied, and what it is still to be given.
type transferDone struct {
	src, dst string
	made     FileKey // identity of the one at the destination
	attrs    attributes
}

// run copies one entry, and what is below it. begin hands it to the walk.
func (t *transfer) run(ctx context.Context, begin func(ctx context.Context) error) (TransferCount, error) {
	defer reportProgress(t.Progress, t.count.snapshot)()
	t.origins = make(map[FileKey]*transferOrigin)
	t.batches = make(chan *transferBatch)
	t.batch = new(transferBatch)
	work, working := errgroup.WithContext(ctx)
	work.Go(func() error {
		defer close(t.batches)
		err := begin(working)
		if err == nil {
			err = t.flush(working)
		}
		t.count.complete.Store(err == nil)
		t.batch.release()
		return err
	})
	work.Go(func() error {
		for b := range t.batches {
			err := t.copyBatch(working, b)
			b.release()
			if err != nil {
				return err // the end of its context tells the walk
			}
		}
		return nil
	})
	err := work.Wait()
	if err == nil {
		err = t.finish(ctx)
	}
	return t.count.snapshot(), err
}

// flush hands the batch on.
func (t *transfer) flush(ctx context.Context) error {
	b := t.batch
	if len(b.jobs) == 0 {
		return nil
	}
	t.from.expect(ctx, b.jobs)
	select {
	case t.batches <- b:
		t.batch = new(transferBatch)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add puts an entry that is no directory into the batch.
func (t *transfer) add(ctx context.Context, j *transferJob) error {
	j.dir.retain()
	b := t.batch
	b.jobs = append(b.jobs, j)
	if b.dirs == nil {
		b.dirs = make(map[*transferDir]bool)
	}
	b.dirs[j.dir] = true
	if j.regular() {
		b.bytes += j.st.Size
	}
	if len(b.jobs) >= transferFiles || b.bytes >= transferBytes || len(b.dirs) >= transferDirs {
		return t.flush(ctx)
	}
	return nil
}

func (b *transferBatch) release() {
	for _, j := range b.jobs {
		j.dir.release()
	}
}

// copyBatch copies what is in a batch. The error is for the work as a whole.
func (t *transfer) copyBatch(ctx context.Context, b *transferBatch) error {
	var workers errgroup.Group
	workers.SetLimit(max(4, 2*runtime.GOMAXPROCS(0)))
	var stop atomic.Pointer[error]
	for _, j := range b.jobs {
		workers.Go(func() error {
			if stop.Load() == nil {
				j.fail(j.copy(ctx))
			}
			if err := cmp.Or(ctx.Err(), j.err); err != nil && stopsAll(err) {
				err = j.about(err)
				stop.CompareAndSwap(nil, &err)
			}
			return nil
		})
	}
	_ = workers.Wait() // they return no errors
	if err := stop.Load(); err != nil {
		for _, j := range b.jobs {
			t.undo(j)
			if j.err != nil && !stopsAll(j.err) {
				t.failed(j.src(), j.err)
			}
		}
		return *err
	}
	return t.publish(b.jobs)
}

// publish makes the copies durable and gives them their names.
func (t *transfer) publish(jobs []*transferJob) error {
	var files, all []*transferJob
	for _, j := range jobs {
		if j.temp == "" {
			t.failed(j.src(), j.err)
			continue
		}
		all = append(all, j)
		if j.regular() && j.err == nil {
			files = append(files, j)
		}
	}
	if len(files) > 0 {
		t.to.settle(files)
	}
	for _, j := range all {
		if j.err == nil {
			j.fail(t.place(j))
		}
		if j.err != nil {
			t.undo(j)
			if stopsAll(j.err) {
				for _, rest := range all {
					t.undo(rest)
				}
				return j.about(j.err)
			}
			t.failed(j.src(), j.err)
			continue
		}
		t.counted(j)
	}
	return nil
}

// counted adds a copy that has its name to the count.
func (t *transfer) counted(j *transferJob) {
	switch j.kind() {
	case unix.S_IFREG:
		t.count.files.Add(1)
		t.count.bytes.Add(j.size)
	case unix.S_IFLNK:
		t.count.symlinks.Add(1)
	default:
		t.count.special.Add(1)
	}
	if j.origin != nil {
		j.origin.done = true
	}
	if len(j.lost) > 0 && t.lost != nil {
		t.lost(LostContent{Path: j.src(), Size: j.size, Ranges: j.lost})
	}
	t.flawed(j.src(), j.flaws)
}

// flawed reports an entry that was copied, but lacks something.
func (t *transfer) flawed(src string, flaws []error) {
	if len(flaws) == 0 {
		return
	}
	err := fmt.Errorf("copied, but not with all that belongs to it: %w", flaws[0])
	for _, flaw := range flaws[1:] {
		err = fmt.Errorf("%w; %w", err, flaw)
	}
	t.failed(src, err)
}

// failed reports an entry.
func (t *transfer) failed(src string, err error) {
	if err == nil {
		return
	}
	t.count.failed.Add(1)
	if t.Failed != nil {
		t.Failed(src, err)
	}
}

// finish makes the further names and gives the directories their attributes, and makes all of it durable.
func (t *transfer) finish(ctx context.Context) error {
	for _, l := range t.links {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := ErrOtherNameFailed
		if l.origin.done {
			err = taken(l.dst, t.link(l))
		}
		if err != nil {
			t.failed(l.src, err)
			continue
		}
		t.count.links.Add(1)
	}
	for i := len(t.finished) - 1; i >= 0; i-- {
		d := t.finished[i]
		flaws, err := t.finishDirectory(d)
		t.failed(d.src, err)
		t.flawed(d.src, flaws)
	}
	return t.to.calls().SyncFS(t.root)
}

func (t *transfer) finishDirectory(d *transferDone) (flaws []error, err error) {
	dir, name, err := openParentBelow(t.to.calls(), t.root, d.dst)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.to.calls().Close(dir)) }()
	return t.dressEntry(dir, name, d.made, &d.attrs)
}

// link gives a file that was copied one more name.
func (t *transfer) link(l transferLink) (err error) {
	store := t.to.calls()
	fromDir, fromName, err := openParentBelow(store, t.root, l.origin.dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(fromDir)) }()
	toDir, _, err := openParentBelow(store, t.root, l.dst)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(toDir)) }()
	if err := t.v.StoreFullName(toDir, l.name); err != nil {
		return err
	}
	temp := t.to.temporary()
	if err := store.Link(fromDir, fromName, toDir, temp); err != nil {
		t.dropUnused(toDir, l.name)
		return err
	}
	err = t.rename(toDir, temp, l.name)
	// Nothing happens in a rename between two names of one file, and the temporary one stays.
	if uerr := store.Unlink(toDir, temp); uerr != nil && !backing.IsNotExist(uerr) {
		err = errors.Join(err, uerr)
	}
	return err
}

// rename gives what is called temp in dir its name.
func (t *transfer) rename(dir int, temp string, name Name) error {
	store := t.to.calls()
	if t.Force {
		return store.Rename(dir, temp, dir, name.Stored, 0)
	}
	err := store.Rename(dir, temp, dir, name.Stored, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS { // NFS and others cannot
		if err = store.Link(dir, temp, dir, name.Stored); err == nil {
			err = store.Unlink(dir, temp)
		}
	}
	return err
}

// taken says what is in the way, if that is what is wrong.
func taken(dst string, err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EISDIR) {
		return fmt.Errorf("%s %w", dst, ErrDestinationExists)
	}
	return err
}

// dropUnused removes the full name of an entry that was not made after all, unless there is one of that name.
func (t *transfer) dropUnused(dir int, name Name) {
	var st unix.Stat_t
	if name.Long() && t.to.calls().StatAt(dir, name.Stored, &st) == unix.ENOENT {
		t.v.DropFullName(dir, name)
	}
}
