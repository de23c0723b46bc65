package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// replay is the work on a journal that a mount has left behind, which did not come to its end: each file is brought to what
// was recorded of it last. It may be interrupted and done again at any point: records are written in place in the same order
// with the same result, and the journal goes only after all of that is durable.
type replay struct {
	v      *Volume
	fd     int
	header journalHeader
	copied bool // the journal is not the file that it was: the volume is a copy
	files  map[crypto.ID]*redo
	blocks int // written in place
	done   int // files of which blocks were written
}

// redo is what the records say of one file.
type redo struct {
	inode uint64
	// blocks has the place in the journal of each block's newest record.
	blocks map[int64]placedBlock
	holes  []blockRange // made before any of blocks was written
	cut    int64        // the file was made to end here before the blocks from there on were written; -1: it was not
	reach  int64        // the file was at least so long since, in bytes of plaintext
	time   int64        // of the last record, in nanoseconds since 1970
}

// placedBlock is a sealed block in the journal.
type placedBlock struct {
	at   int64
	size int // bytes
}

// recover replays the journal, if there is one. The caller holds the volume exclusively.
func (v *Volume) recover() error {
	fd, err := v.openJournal()
	if fd < 0 || err != nil {
		return err
	}
	r := &replay{v: v, fd: fd, files: map[crypto.ID]*redo{}}
	err = r.run()
	if err = errors.Join(err, v.store.Close(fd)); err != nil {
		return fmt.Errorf("%s: %w: %w", filepath.Join(v.dir, CrashJournal), ErrReplay, err)
	}
	return nil
}

// ErrReplay says that the journal of a mount that did not come to its end could not be worked through. It is as it was.
var ErrReplay = errors.New("the journal of the last mount could not be replayed")

// takeLock locks the volume for a mount. One that only reads locks it exclusively as well if there is a journal to replay, as
// long as that takes; if others are reading it already, that is up to them.
func (v *Volume) takeLock(r *root, readOnly bool) (err error) {
	if readOnly {
		var st unix.Stat_t
		switch err := v.store.StatAt(r.fd(), CrashJournal, &st); {
		case backing.IsNotExist(err):
			v.lock, err = r.lock(false)
			return err
		case err != nil:
			return r.failed("stat", CrashJournal, err)
		}
	}
	v.lock, err = r.lock(true)
	if readOnly && errors.Is(err, ErrLocked) {
		if v.lock, err = r.lock(false); err == nil {
			v.shared = true
			v.warnStale("other mounts are reading it")
		}
	}
	return err
}

// bringUpToDate replays the journal if this mount may.
func (v *Volume) bringUpToDate() error {
	if v.lock == nil || v.shared {
		return nil
	}
	err := v.recover()
	if !v.readOnly {
		return err
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		v.warnStale(err)
		err = nil
	}
	return errors.Join(err, flock(v.lock, unix.LOCK_SH))
}

func (v *Volume) warnStale(reason any) {
	v.log.Warn("the last mount did not come to its end, and its journal cannot be replayed now: "+
		"what was written last may be old or unreadable; mount the volume read-write once", "reason", reason)
}

// openJournal returns a descriptor of the journal, -1 if there is none.
func (v *Volume) openJournal() (int, error) {
	var st unix.Stat_t
	err := v.store.StatAt(v.Root(), CrashJournal, &st)
	switch {
	case backing.IsNotExist(err):
		return -1, nil
	case err != nil:
		return -1, err
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return -1, fmt.Errorf("%s: %w: it is no regular file", filepath.Join(v.dir, CrashJournal), ErrJournal)
	}
	fd, err := v.store.Open(v.Root(), CrashJournal, unix.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: filepath.Join(v.dir, CrashJournal), Err: err}
	}
	return fd, nil
}

func (r *replay) run() error {
	if err := r.readHeader(); err != nil {
		return err
	}
	if err := r.readRecords(); err != nil {
		return err
	}
	if len(r.files) > 0 {
		if err := r.redoFiles(); err != nil {
			return err
		}
		r.v.log.Info("replayed the journal of a mount that did not come to its end", "blocks", r.blocks, "files", r.done)
	}
	return r.remove()
}

// readHeader reads the newer of the two headers. A journal is given its name when it is whole, so there always is one.
func (r *replay) readHeader() error {
	var st unix.Stat_t
	if err := r.v.store.Stat(r.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrJournal
	}
	var errs []error
	for slot := range int64(2) {
		buf := make([]byte, journalHeaderSize+crypto.JournalMACSize)
		n, err := r.v.store.ReadAt(r.fd, buf, slot*journalHeaderSpace)
		if err != nil {
			return err
		}
		h, err := decodeJournalHeader(buf[:n], r.v.journalMAC)
		switch {
		case errors.Is(err, crypto.ErrNewerVersion):
			return err
		case err != nil || h.place() != slot*journalHeaderSpace:
			errs = append(errs, err)
		case h.generation >= r.header.generation:
			r.header = h
		}
	}
	if len(errs) == 2 || r.header.volume != r.v.cfg.VolumeID || r.header.size > maxJournalSize {
		return ErrJournal
	}
	r.copied = r.header.inode != st.Ino
	return nil
}

// readRecords reads the records of the present generation up to the first that is not one: there the journal was being written
// when its mount ended.
func (r *replay) readRecords() error {
	buf := make([]byte, recordSpace(maxRecordPayload))
	at := int64(journalRecords)
	for sequence := uint64(1); at < r.header.size; sequence++ {
		n, err := r.v.store.ReadAt(r.fd, buf[:min(int64(len(buf)), journalReadAhead, r.header.size-at)], at)
		if err != nil {
			return err
		}
		rec, err := peekRecord(buf[:n])
		if err == nil && rec.size() > int64(n) {
			if n, err = r.v.store.ReadAt(r.fd, buf[:min(rec.size(), r.header.size-at)], at); err != nil {
				return err
			}
		}
		if rec, err = decodeRecord(buf[:n], r.v.journalMAC); err != nil {
			return nil
		}
		if rec.generation != r.header.generation || rec.sequence != sequence {
			return nil
		}
		r.note(&rec, at+recordHeaderSize)
		at += rec.size()
	}
	return nil
}

// journalReadAhead is how much is read to find out how long a record is: most are not longer.
const journalReadAhead = 8 << 10

// note takes in one record, whose blocks begin at the offset at.
func (r *replay) note(rec *record, at int64) {
	if rec.kind == recordRetire {
		delete(r.files, rec.file)
		return
	}
	file := r.files[rec.file]
	if file == nil {
		file = &redo{blocks: map[int64]placedBlock{}, cut: -1}
		r.files[rec.file] = file
	}
	file.inode, file.time = rec.inode, rec.time
	switch rec.kind {
	case recordShrink:
		file.shrink(rec)
	case recordHole:
		file.forget(rec.first, rec.first+rec.hole)
		file.holes = append(file.holes, blockRange{rec.first, rec.first + rec.hole})
	}
	if rec.kind != recordHole {
		file.reach = max(file.reach, rec.eof())
	}
	for i := range rec.blocks() {
		from := i * crypto.CipherBlockSize
		size := min(crypto.CipherBlockSize, int64(rec.payload)-from)
		file.blocks[rec.first+i] = placedBlock{at: at + from, size: int(size)}
	}
}

// shrink forgets what lies behind the new end.
func (f *redo) shrink(rec *record) {
	f.forget(rec.first, maxBlocks+1)
	for i := range f.holes {
		f.holes[i].hi = min(f.holes[i].hi, rec.first)
	}
	f.cut, f.reach = rec.first*crypto.BlockSize, 0 // a last block that is not whole follows
}

// forget drops the blocks [lo, hi).
func (f *redo) forget(lo, hi int64) {
	for b := range f.blocks {
		if lo <= b && b < hi {
			delete(f.blocks, b)
		}
	}
}

// order returns the indices of the blocks, ascending.
func (f *redo) order() []int64 {
	list := make([]int64, 0, len(f.blocks))
	for b := range f.blocks {
		list = append(list, b)
	}
	slices.Sort(list)
	return list
}

// remove takes the journal away, durably: nothing that it says may come back when the files have changed again.
func (r *replay) remove() error {
	root := r.v.Root()
	err := keepTimes(r.v.store, root, func() error { return r.v.store.Unlink(root, CrashJournal) })
	if err != nil {
		return err
	}
	return r.v.store.Sync(r.v.Root(), false)
}
