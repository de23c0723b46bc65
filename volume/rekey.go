package volume

import (
	"context"
	"errors"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

// Rekeying gives a file a new DEK. Since no block may be read under one key and its neighbour under another, the file is
// copied: its content is written anew to a temporary file beside it, which is made durable and then takes the place of the
// file by rename. Killed at any instant, it leaves the old file or the new one under each name.
//
// # Temporary files
//
// The copy of a file is called "envfs.tmp." and the file ID of the original in hex. One that has no other name is incomplete,
// or was not put in place, and is removed by the next rekey. A file with several names gets each of them renamed, one
// after the other, and the temporary name stays until that is done: so a temporary file that has further names is whole, and
// the next rekey renames what is left of the original with that file ID. The name that a further link has before it is renamed
// ends in "-link".
//
// Import gives its unfinished copies names of the same kind, with a random number; none of them ever has a further name.
const (
	rekeyPrefix = "envfs.tmp."
	rekeyLink   = "-link"
)

// rekeyWorkers is how many files are copied side by side: most of the time is spent waiting for the disk.
const rekeyWorkers = 4

// Why a file is not rekeyed. None of them is damage.
var (
	// ErrFileOpen: a process has the ciphertext file open.
	ErrFileOpen = errors.New("the file is open in another process")
	// ErrMoreLinks: the file has names that the rekey was not told of.
	ErrMoreLinks = errors.New("the file has more hard links")
	// ErrFileChanged: the ciphertext file was changed while it was copied.
	ErrFileChanged = errors.New("the file was changed meanwhile")
)

// RekeyOptions say what to rekey.
type RekeyOptions struct {
	// Paths are files and directories below the ciphertext directory, "." for all of it.
	Paths []string
	// Journal remembers what is done, for a later run to leave out. Nil: nothing does.
	Journal *RekeyJournal
	// Failed is told of each file that could not be rekeyed, by one of its paths in the ciphertext directory. It is called
	// from several goroutines at once. Nil: nobody is told.
	Failed func(rel string, err error)
	// Audit takes notes of each file that was rekeyed or could not be. Nil: nobody does.
	Audit KeyAuditor
	// Progress is told how far the work has come, ten times a second and at the end, by one goroutine. Nil: nobody is.
	Progress func(RekeyCount)
}

// RekeyCount counts files; one with several names counts once.
type RekeyCount struct {
	Files   int64 `json:"files"` // found, but for the empty ones; Rekeyed, Skipped and Failed of them are done
	Rekeyed int64 `json:"rekeyed"`
	Skipped int64 `json:"skipped"` // done before, as the journal says
	Failed  int64 `json:"failed"`
	Empty   int64 `json:"empty"`            // have no key
	Bytes   int64 `json:"ciphertext_bytes"` // of Files
	Done    int64 `json:"done_bytes"`       // of Bytes
}

// Rekey gives files new DEKs. v must be open for writing, so that no mount has the volume.
//
// A file that cannot be rekeyed is told to o.Failed, stays as it is, and does not stop the others. The error is for the work
// as a whole; the result is right in any case.
func (v *Volume) Rekey(ctx context.Context, o RekeyOptions) (RekeyCount, error) {
	if v.pool == nil {
		return RekeyCount{}, unix.EROFS
	}
	r := &rekey{RekeyOptions: o, v: v}
	defer reportProgress(r.Progress, r.count.snapshot)()
	files, err := r.survey(ctx)
	if err == nil {
		err = r.all(ctx, files)
	}
	return r.count.snapshot(), err
}

// rekey is one run.
type rekey struct {
	RekeyOptions
	v     *Volume
	count rekeyCounter
}

// rekeyFile is a file to be rekeyed.
type rekeyFile struct {
	key   FileKey
	names []string // paths below the root, at least one, sorted
	links uint64   // how many names it has
	size  int64    // of the ciphertext
}

type rekeyCounter struct {
	files, rekeyed, skipped, failed, empty, bytes, done atomic.Int64
}

func (c *rekeyCounter) snapshot() RekeyCount {
	return RekeyCount{
		Rekeyed: c.rekeyed.Load(), Skipped: c.skipped.Load(), Failed: c.failed.Load(), Empty: c.empty.Load(),
		Files: c.files.Load(), Bytes: c.bytes.Load(), Done: c.done.Load(),
	}
}

// all rekeys the files of a survey.
func (r *rekey) all(ctx context.Context, files []*rekeyFile) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var failure atomic.Pointer[error]
	var workers errgroup.Group
	workers.SetLimit(rekeyWorkers)
	for _, f := range files {
		if ctx.Err() != nil {
			break
		}
		workers.Go(func() error {
			err := r.one(ctx, f)
			switch {
			case err == nil:
			case stopsAll(err):
				failure.CompareAndSwap(nil, &err)
				stop()
			default:
				r.fail(f.names[0], err)
				r.count.done.Add(f.size)
			}
			return nil
		})
	}
	_ = workers.Wait() // they return no errors
	if err := failure.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}

// stopsAll reports whether an error concerns the work as a whole.
func stopsAll(err error) bool {
	for _, class := range []error{
		context.Canceled, context.DeadlineExceeded, keyring.ErrUnreachable, keyring.ErrDenied, keyring.ErrConfig,
		unix.ENOSPC, unix.EDQUOT, unix.EROFS, errJournal, errNotNoted,
	} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

func (r *rekey) fail(rel string, err error) {
	r.count.failed.Add(1)
	if r.Failed != nil {
		r.Failed(rel, err)
	}
	if r.Audit != nil {
		id, _ := r.v.peekID(rel)
		_ = keyAudit{r.Audit}.record(KeyChange{Path: rel, ID: id, Err: err}) // nothing was done that must be noted
	}
}

// one rekeys a file.
func (r *rekey) one(ctx context.Context, f *rekeyFile) error {
	w := &rekeyWork{rekey: r, ctx: ctx, file: f, dir: -1, temp: -1}
	defer w.close()
	if err := w.open(); err != nil {
		return err
	}
	switch {
	case w.source.ID() == (crypto.ID{}):
		r.count.files.Add(-1)
		r.count.empty.Add(1)
		r.count.bytes.Add(-f.size)
		return nil
	case r.Journal.has(w.source.ID()):
		r.count.skipped.Add(1)
		r.count.done.Add(f.size)
		return nil
	}
	if err := w.copy(); err != nil {
		return err
	}
	if err := w.publish(); err != nil {
		return err
	}
	r.count.rekeyed.Add(1)
	return nil
}
