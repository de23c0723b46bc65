package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
)

// RewrapKeyring is what a rewrap needs of a key service: it neither wraps nor unwraps.
type RewrapKeyring interface {
	keyring.Rewrapper
	keyring.VersionReader
}

// RewrapOptions say how to rewrap a volume.
type RewrapOptions struct {
	Keyring RewrapKeyring
	// DryRun counts what would be done. It asks the key service for its newest version only.
	DryRun bool
	// Alone takes the mount lock for the whole time, for file systems on which files cannot be locked one by one.
	Alone bool
	Store *backing.Store // nil: calls go straight to the file system
	// Failed is told of each file that could not be rewrapped, by its path in the ciphertext directory. It is called from
	// several goroutines at once. Nil: nobody is told.
	Failed func(rel string, err error)
	// Audit takes notes of each key that was changed or could not be. Nil: nobody does. A dry run is not noted.
	Audit KeyAuditor
	// Progress is told how far the work has come, ten times a second and at the end, by one goroutine. Nil: nobody is.
	Progress func(RewrapCount)
}

// RewrapCount counts files. One with several names counts once.
type RewrapCount struct {
	Files     int64 `json:"files"`      // that have a key; Rewrapped, Current and Failed of them are done
	Rewrapped int64 `json:"rewrapped"`  // in a dry run: that would be
	Current   int64 `json:"current"`    // had the newest version already
	Failed    int64 `json:"failed"`     // directories that cannot be read are counted here, too
	Empty     int64 `json:"empty"`      // have no header, and so no key
	Complete  bool  `json:"complete"`   // the whole tree was looked at: Files is final
	VolumeKey bool  `json:"volume_key"` // the volume key was rewrapped, or would be
}

// RewrapResult is what a rewrap has done.
type RewrapResult struct {
	Version int `json:"kek_version"` // that files have now
	RewrapCount
}

// Rewrap moves the wrapped keys of a volume, that of envfs.json and those of all files, to the newest version of the
// key-encryption key (format.md, section 5.7). It needs no key of the volume and sees none: the sealed part of each header
// is copied. The volume may be mounted meanwhile, and what is killed or cancelled at any instant leaves every file whole;
// the next rewrap goes on with what is left.
//
// A file that cannot be rewrapped is told to o.Failed and does not stop the others. The error is for the work as a whole
// (a key service that does not answer or refuses everything, a disk that does not sync, ctx); the result is right in any case.
func Rewrap(ctx context.Context, dir string, o RewrapOptions) (RewrapResult, error) {
	root, err := openRoot(o.Store, dir)
	if err != nil {
		return RewrapResult{}, err
	}
	r := &rewrap{RewrapOptions: o, root: root, store: root.store}
	err = r.run(ctx)
	return RewrapResult{Version: r.version, RewrapCount: r.count.snapshot()}, errors.Join(err, root.close())
}

// rewrap is one run. The tree is walked by several goroutines, which hand what is to be done to a second stage that asks the
// key service, several requests at a time, and that one to a third, which writes. So disk and service work side by side.
type rewrap struct {
	RewrapOptions
	root    *root
	store   *backing.Store
	cfg     *Config
	layout  crypto.Layout
	version int    // the newest of the KEK
	dev     uint64 // of the root
	group   int    // how many files make a group
	count   rewrapCounter

	linksMu sync.Mutex
	links   map[FileKey]bool // files with several names that were seen; guarded by linksMu
}

func (r *rewrap) audit() keyAudit {
	if r.DryRun {
		return keyAudit{}
	}
	return keyAudit{r.Audit}
}

// rewrapItem is a file to be rewrapped. fd is closed by whoever takes it out of the works.
type rewrapItem struct {
	rel      string
	id       crypto.ID // as the header states it, which nothing authenticates here
	fd       int
	dev      uint64
	sequence uint64          // of the slot that counts, when it was last looked at
	old      keyring.Wrapped // in that slot
	new      keyring.Wrapped // to replace it; "" until the key service has answered
	spare    bool            // the slot that counts has the newest version already: only the other one is to be replaced
}

type rewrapCounter struct {
	files, rewrapped, current, failed, empty atomic.Int64
	complete, volumeKey                      atomic.Bool
}

func (c *rewrapCounter) snapshot() RewrapCount {
	return RewrapCount{
		Rewrapped: c.rewrapped.Load(), Current: c.current.Load(), Failed: c.failed.Load(), Empty: c.empty.Load(),
		Complete: c.complete.Load(), VolumeKey: c.volumeKey.Load(), Files: c.files.Load(),
	}
}

func (r *rewrap) run(ctx context.Context) (err error) {
	if r.Alone {
		lock, err := r.root.lock(true)
		if err != nil {
			return err
		}
		defer lock.Close() // nothing is written through it
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := r.rewrapConfig(ctx); err != nil {
		return err
	}
	defer reportProgress(r.Progress, r.count.snapshot)()
	return r.stages(ctx)
}

func (r *rewrap) prepare(ctx context.Context) (err error) {
	if r.cfg, err = r.root.readConfig(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := r.store.Stat(r.root.fd(), &st); err != nil {
		return r.root.failed("stat", "", err)
	}
	r.dev = uint64(st.Dev)
	r.layout = crypto.Layout{SlotSize: int64(r.cfg.SlotSize)}
	r.links = make(map[FileKey]bool)
	r.group = rewrapGroup()
	if r.version, err = r.Keyring.LatestVersion(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.root.path, err)
	}
	return nil
}

// rewrapGroup returns how many files make a group: as many as the disk is synced for at once, fewer where a process may not
// have so many files open. Four groups are in the works at a time.
func rewrapGroup() int {
	const most, least, others = 2048, 16, 128
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return least
	}
	if limit.Cur > 5*most {
		return most
	}
	return min(most, max(least, (int(limit.Cur)-others)/5))
}

// stages runs the three stages until all is done or one of them fails. What has been answered is still written then.
func (r *rewrap) stages(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	items := make(chan *rewrapItem, keyring.DefaultBatch)
	groups := make(chan []*rewrapItem)
	var scanned, asked, written error
	var work sync.WaitGroup
	work.Go(func() {
		defer close(items)
		scanned = r.scan(ctx, items)
	})
	work.Go(func() {
		defer close(groups)
		if err := r.ask(ctx, items, groups); err != nil {
			asked = fmt.Errorf("%s: %w", r.root.path, err)
			stop()
		}
		for it := range items {
			r.closeItem(it)
		}
	})
	work.Go(func() {
		if written = r.write(groups); written != nil {
			stop()
		}
		for group := range groups {
			r.closeItems(group)
		}
	})
	work.Wait()
	// One that failed has stopped the others, whose errors then say no more than that.
	return cmp.Or(written, asked, scanned)
}

// fail counts and tells a file that could not be rewrapped.
func (r *rewrap) fail(rel string, err error) { r.failed(KeyChange{Path: rel, Err: err}) }

func (r *rewrap) failed(c KeyChange) {
	r.count.failed.Add(1)
	if r.Failed != nil {
		r.Failed(c.Path, c.Err)
	}
	_ = r.audit().record(c) // nothing was done that must be noted; the next change asks whether it can be
}

func (r *rewrap) failItem(it *rewrapItem, err error) {
	r.failed(KeyChange{Path: it.rel, ID: it.id, KEK: versionOf(it.old), Err: err})
	r.closeItem(it)
}

// closeItem lets go of a file. What was written has been synced, or was never said to be done.
func (r *rewrap) closeItem(it *rewrapItem) { _ = r.store.Close(it.fd) }

func (r *rewrap) closeItems(items []*rewrapItem) {
	for _, it := range items {
		r.closeItem(it)
	}
}
