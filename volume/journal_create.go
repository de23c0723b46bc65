package volume

import (
	"errors"
	"fmt"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// journalTemp is the name under which a journal is made. One that a crash left there means nothing.
const journalTemp = CrashJournal + ".new"

// The sizes of a new journal in bytes. It is filled with zeros, so that a record overwrites what the file system has already
// allocated: making it durable costs one write and no change of metadata. On a full disk it is made smaller.
const (
	journalSizeBlocks = 4 << 20
	journalSizeFull   = 32 << 20
	journalLeast      = 256 << 10
	journalLeastFull  = 2 << 20 // room for one record of the largest write
)

// create makes the journal, durably, its name included. At any instant there is either none or a whole one. The caller holds
// mu.
func (j *journal) create() error {
	return keepTimes(j.store, j.root, j.createNow)
}

// keepTimes does work that makes or removes a file of envfs' own in a directory, and gives the directory the times back that it had.
// Applications must not see it change. If one makes a file there in the same instant, the directory seems older by that much.
func keepTimes(store *backing.Store, dir int, work func() error) error {
	var before unix.Stat_t
	if err := store.Stat(dir, &before); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return store.SetTimes(backing.Target{FD: dir}, before.Atim, before.Mtim)
}

func (j *journal) createNow() error {
	fd, err := j.makeTemp()
	if err != nil {
		return err
	}
	header, err := j.fill(fd)
	if err == nil {
		err = j.publish()
	}
	if err != nil {
		return errors.Join(err, j.store.Close(fd), j.removeTemp())
	}
	j.fd, j.header = fd, header
	j.ready.Store(true)
	j.sequence, j.tail, j.durable = 0, journalRecords, journalRecords
	return nil
}

func (j *journal) makeTemp() (int, error) {
	if err := j.removeTemp(); err != nil {
		return -1, err
	}
	return j.store.Open(j.root, journalTemp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
}

func (j *journal) removeTemp() error {
	if err := j.store.Unlink(j.root, journalTemp); err != nil && !backing.IsNotExist(err) {
		return err
	}
	return nil
}

// fill writes an empty journal of the first generation, as large as the disk allows, and syncs it.
func (j *journal) fill(fd int) (journalHeader, error) {
	var st unix.Stat_t
	if err := j.store.Stat(fd, &st); err != nil {
		return journalHeader{}, err
	}
	size, least := j.size, int64(journalLeast)
	if j.safety == SafeFull {
		least = journalLeastFull
	}
	err := j.zero(fd, size)
	for isFull(err) && size > least {
		size /= 2
		err = errors.Join(j.store.Truncate(fd, 0), j.zero(fd, size))
	}
	if err != nil {
		return journalHeader{}, err
	}
	h := journalHeader{generation: 1, volume: j.volume, inode: st.Ino, size: size}
	if _, err := j.store.WriteAt(fd, h.encode(j.mac), h.place()); err != nil {
		return h, err
	}
	return h, j.store.Sync(fd, false)
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

func (j *journal) zero(fd int, size int64) error {
	zeros := make([]byte, min(size, 256<<10))
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := j.store.WriteAt(fd, zeros, at); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) publish() error {
	if err := j.store.Rename(j.root, journalTemp, j.root, CrashJournal, 0); err != nil {
		return err
	}
	if err := j.store.Sync(j.root, false); err != nil {
		// It holds nothing yet, so it is in nobody's way.
		return errors.Join(fmt.Errorf("the name of the journal is not durable: %w", err), j.store.Unlink(j.root, CrashJournal))
	}
	return nil
}
