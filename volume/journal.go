package volume

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// CrashSafety says which blocks survive a crash of machine or power while they are being overwritten.
type CrashSafety int

const (
	// SafeBlocks covers blocks of which only a part is overwritten, and last blocks that become longer or shorter: those of
	// which an application may lose what it did not write. It is the default.
	SafeBlocks CrashSafety = iota
	// SafeFull covers each block that is overwritten.
	SafeFull
)

const (
	// maxJournaledOpen bounds the descriptors that the journal keeps open, one for each file.
	maxJournaledOpen = 128
	// maxJournaled bounds the files that the journal remembers.
	maxJournaled = 4096
)

// journal keeps the new bytes of blocks that are about to be overwritten, until they are durable in place. An on-disk block
// straddles sectors and pages, so when the power fails while it is being written neither the old nor the new bytes may be
// left. With a durable record of the new bytes the next mount finishes the job.
//
// What is written under a record is durable with the record, so a record is also what makes fsync cheap. The next mount
// writes what the newest records say, whatever stands in place. Hence the rule on which all depends: while a block has a
// record in the present generation, it is changed in place only under a newer record; where that is not wanted, the file is
// retired before: it is made durable in place, and a record says that all before it is void.
//
// When the journal is full, every file in it is made durable in place, and a new generation begins (checkpoint).
//
// LOCK ORDER: mu comes after all locks of a File. It is held while a record is written to the page cache, never during a sync.
// Calls wait for syncs of others, so they must not be made with a mutex held that a checkpoint, which uses nothing but
// descriptors, could need: there is none.
type journal struct {
	store  *backing.Store
	log    *slog.Logger
	root   int // descriptor of the ciphertext directory
	volume crypto.ID
	mac    *crypto.JournalMAC // guarded by mu
	safety CrashSafety
	size   int64 // of a new journal in bytes

	entries atomic.Int32 // len(files), for a look without the lock
	ready   atomic.Bool  // fd is there; changed with mu held
	failed  atomic.Bool  // what the journal holds is not known any more; changed with mu held

	mu      sync.Mutex
	changed sync.Cond // any of the states below; L is &mu

	fd       int // -1 as long as there is no journal; guarded by mu
	header   journalHeader
	sequence uint64 // of the last record; guarded by mu
	tail     int64  // where the next record goes; guarded by mu
	durable  int64  // records before are durable; guarded by mu
	buf      []byte // a record being encoded; guarded by mu

	files         map[crypto.ID]*journaled // guarded by mu
	open          int                      // of them, those with a descriptor; guarded by mu
	busy          int                      // calls between start and finish; guarded by mu
	syncing       bool                     // somebody is syncing the journal; guarded by mu
	checkpointing bool                     // nothing may start; guarded by mu
	closed        bool                     // guarded by mu
}

// journaled is a file with records in the present generation. Its fields are guarded by journal.mu.
type journaled struct {
	id     crypto.ID
	inode  uint64
	fd     int                // -1 when what was written under the records is durable in place, or the file has no name left
	blocks map[int64]struct{} // that have a record
	tail   int64              // so has every block from here on, because the file was cut, or a hole made
	busy   int                // calls between start and finish
	// retiring: somebody is making the file durable, and no record may be written meanwhile.
	retiring bool
}

// errJournalClosed is returned to writers that come after the end.
var errJournalClosed = errors.New("the volume is closed")

func newJournal(v *Volume, o OpenOptions) *journal {
	j := &journal{
		store: v.store, log: v.log, root: v.Root(), volume: v.cfg.VolumeID, mac: v.journalMAC, safety: o.CrashSafety, size: o.journalSize,
		fd: -1, files: map[crypto.ID]*journaled{},
	}
	if j.size == 0 {
		j.size = journalSizeBlocks
		if j.safety == SafeFull {
			j.size = journalSizeFull
		}
	}
	j.changed.L = &j.mu
	return j
}

// touches reports whether one of the blocks [lo, hi) of a file has a record that counts. The caller owns the blocks, so the
// answer cannot become true behind its back.
func (j *journal) touches(id crypto.ID, lo, hi int64) bool {
	if j.entries.Load() == 0 || lo >= hi {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e := j.files[id]
	return e != nil && e.touches(lo, hi)
}

func (e *journaled) touches(lo, hi int64) bool {
	if hi > e.tail {
		return true
	}
	if hi-lo <= int64(len(e.blocks)) {
		for b := lo; b < hi; b++ {
			if _, ok := e.blocks[b]; ok {
				return true
			}
		}
		return false
	}
	for b := range e.blocks {
		if lo <= b && b < hi {
			return true
		}
	}
	return false
}

// entry is what a caller wants to have recorded: these sealed blocks, the first of which has index first, or a hole of so many
// blocks.
type entry struct {
	kind   recordKind
	first  int64
	sealed []byte
	hole   int64
}

// start writes records of a file and returns when they are durable; together, so that callers at the same time share one
// sync. Until finish is called with the result no checkpoint and no retirement takes the records back: meanwhile the caller
// writes in place. On an error nothing has been recorded that a later success does not supersede.
func (j *journal) start(f *File, entries []entry) (*journaled, error) {
	need := int64(0)
	for _, e := range entries {
		need += recordSpace(len(e.sealed))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	file, err := j.admit(f, need)
	if err != nil {
		return nil, err
	}
	j.busy++
	file.busy++
	for _, e := range entries {
		if err = j.append(file, e); err != nil {
			break
		}
	}
	if err == nil {
		err = j.commit()
	}
	if err != nil {
		j.leave(file)
		return nil, fmt.Errorf("journal: %w", err)
	}
	return file, nil
}

// finish ends what start began: the blocks have been written in place.
func (j *journal) finish(file *journaled) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.leave(file)
}

// leave ends a use of the records. The caller holds mu.
func (j *journal) leave(file *journaled) {
	j.busy--
	file.busy--
	if file.busy == 0 {
		j.changed.Broadcast()
	}
}

// prepare makes the journal if there is none. A caller that is about to need it asks before it announces what it is going to
// do, because a full disk may have no room for one.
func (j *journal) prepare() error {
	if j.ready.Load() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fd >= 0 || j.closed {
		return nil
	}
	if err := j.create(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// admit waits until records of f with need bytes may be written, makes room for them if there is none, and returns the file.
// The caller holds mu.
func (j *journal) admit(f *File, need int64) (*journaled, error) {
	for {
		file := j.files[f.key.id]
		var err error
		switch {
		case j.closed:
			return nil, errJournalClosed
		case j.checkpointing, file != nil && file.retiring:
			j.changed.Wait()
		case j.fd < 0:
			err = j.create()
		case j.failed.Load(), j.tail+need > j.header.size, j.crowded(file):
			err = j.checkpoint()
		default:
			return j.adopt(f, file)
		}
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if j.fd >= 0 && journalRecords+need > j.header.size {
			return nil, fmt.Errorf("journal of %d bytes: %w", j.header.size, unix.ENOSPC)
		}
	}
}

// crowded reports that there is no room for one more file. The caller holds mu.
func (j *journal) crowded(file *journaled) bool {
	if file == nil && len(j.files) >= maxJournaled {
		return true
	}
	return (file == nil || file.fd < 0) && j.open >= maxJournaledOpen
}

// adopt makes f one of the files of the journal, with a descriptor of its own. The caller holds mu.
func (j *journal) adopt(f *File, file *journaled) (*journaled, error) {
	if file != nil && file.fd >= 0 {
		return file, nil
	}
	var st unix.Stat_t
	if err := j.store.Stat(f.FD(), &st); err != nil {
		return nil, err
	}
	fd, err := j.store.Dup(f.FD())
	if err != nil {
		return nil, err
	}
	if file == nil {
		file = &journaled{id: f.key.id, blocks: map[int64]struct{}{}, tail: math.MaxInt64}
		j.files[file.id] = file
		j.entries.Store(int32(len(j.files)))
	}
	file.fd, file.inode = fd, st.Ino
	j.open++
	return file, nil
}

// append writes one record behind the last one. The caller holds mu.
func (j *journal) append(file *journaled, e entry) error {
	r := record{
		kind: e.kind, generation: j.header.generation, sequence: j.sequence + 1,
		file: file.id, inode: file.inode, first: e.first, time: time.Now().UnixNano(), payload: len(e.sealed), hole: e.hole,
	}
	j.buf = r.encode(j.buf[:0], e.sealed, j.mac)
	if _, err := j.store.WriteAt(j.fd, j.buf, j.tail); err != nil {
		j.failed.Store(true) // it may be there all the same
		return err
	}
	j.sequence++
	j.tail += int64(len(j.buf))
	if e.kind == recordRetire {
		return nil
	}
	for b := e.first; b < e.first+r.blocks(); b++ {
		file.blocks[b] = struct{}{}
	}
	if e.kind == recordShrink || e.kind == recordHole {
		file.tail = min(file.tail, e.first)
	}
	return nil
}

// commit returns when all that has been written by now is durable. One caller syncs for all that are waiting. The caller
// holds mu, which is given up meanwhile, and is between start and finish, so that no new generation begins.
func (j *journal) commit() error {
	end := j.tail
	for j.durable < end {
		switch {
		case j.failed.Load():
			return fmt.Errorf("an earlier write has failed: %w", unix.EIO)
		case j.syncing:
			j.changed.Wait()
		default:
			if err := j.sync(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sync makes what has been written by now durable. The caller holds mu, which is given up meanwhile.
func (j *journal) sync() error {
	upTo := j.tail
	j.syncing = true
	j.mu.Unlock()
	err := j.store.Sync(j.fd, true)
	j.mu.Lock()
	j.syncing = false
	j.changed.Broadcast()
	if err != nil {
		j.failed.Store(true)
		return err
	}
	j.durable = max(j.durable, upTo)
	return nil
}

// letGo closes the descriptor of a file whose content is durable in place, or that has no name any more.
func (j *journal) letGo(id crypto.ID) {
	if j.entries.Load() == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.awaitCheckpoint() // it is using the descriptor
	if file := j.files[id]; file != nil {
		j.closeFile(file)
	}
}

// closeFile closes the descriptor of a file. The caller holds mu.
func (j *journal) closeFile(file *journaled) {
	if file.fd < 0 {
		return
	}
	if err := j.store.Close(file.fd); err != nil {
		j.log.Error("closing a journaled file reported an error", "file_id", file.id, "error", err)
	}
	file.fd = -1
	j.open--
}
