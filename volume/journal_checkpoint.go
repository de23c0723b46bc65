package volume

import (
	"errors"
	"fmt"

	"github.com/envfs/envfs/crypto"
)

// syncEach is the number of files up to which a checkpoint syncs each by itself.
const syncEach = 16

// retire makes a file durable in place and takes its records back, so that it may be changed without new ones. It must not be
// called between start and finish.
func (j *journal) retire(f *File) error {
	if j.entries.Load() == 0 {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	file := j.files[f.key.id]
	for file != nil && (j.checkpointing || file.retiring) {
		j.changed.Wait()
		file = j.files[f.key.id]
	}
	if file == nil {
		return nil
	}
	file.retiring = true
	defer func() {
		file.retiring = false
		j.changed.Broadcast()
	}()
	for file.busy > 0 {
		j.changed.Wait()
	}
	if file.fd >= 0 { // else it is durable already
		j.mu.Unlock()
		err := j.store.Sync(f.FD(), true)
		j.mu.Lock()
		if err != nil {
			return err
		}
	}
	return j.strike(file)
}

// strike writes the record that makes those before it void. The caller holds mu, and the file is durable in place.
func (j *journal) strike(file *journaled) error {
	for j.files[file.id] == file { // a checkpoint meanwhile does it, too
		switch {
		case j.checkpointing:
			j.changed.Wait()
		case j.failed.Load(), j.tail+recordSpace(0) > j.header.size:
			if err := j.checkpoint(); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		default:
			j.busy++
			file.busy++
			err := j.append(file, entry{kind: recordRetire})
			if err == nil {
				err = j.commit()
			}
			j.leave(file)
			if err != nil {
				return fmt.Errorf("journal: %w", err)
			}
			j.closeFile(file)
			delete(j.files, file.id)
			j.entries.Store(int32(len(j.files)))
		}
	}
	return nil
}

// repair begins a new generation if what the journal holds is not known any more. Nobody may be told that something is durable
// before: the old generation may hold a write that was reported as failed.
func (j *journal) repair() error {
	if !j.failed.Load() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.awaitCheckpoint()
	if !j.failed.Load() || j.closed {
		return nil
	}
	if err := j.checkpoint(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// checkpoint makes everything durable in place that the journal holds, and begins a new generation, which is empty. The caller
// holds mu, which is given up meanwhile, and no checkpoint is under way. On an error all is as before, but for the
// failure of the last step, after which nothing can be recorded until a checkpoint succeeds.
func (j *journal) checkpoint() error {
	j.checkpointing = true
	defer func() {
		j.checkpointing = false
		j.changed.Broadcast()
	}()
	for j.busy > 0 {
		j.changed.Wait()
	}
	var fds []int
	for _, file := range j.files {
		if file.fd >= 0 {
			fds = append(fds, file.fd)
		}
	}
	next := j.header
	next.generation++
	header := next.encode(j.mac)
	j.mu.Unlock()
	err := j.settle(fds)
	started := err == nil
	if started {
		_, err = j.store.WriteAt(j.fd, header, next.place())
	}
	if err == nil {
		err = j.store.Sync(j.fd, true)
	}
	j.mu.Lock()
	if err != nil {
		if started {
			j.failed.Store(true)
		}
		return err
	}
	for _, file := range j.files {
		j.closeFile(file)
	}
	j.header, j.files = next, map[crypto.ID]*journaled{}
	j.entries.Store(0)
	j.sequence, j.tail, j.durable = 0, journalRecords, journalRecords
	j.failed.Store(false)
	return nil
}

// awaitCheckpoint returns when no checkpoint is under way. The caller holds mu, which is given up meanwhile.
func (j *journal) awaitCheckpoint() {
	for j.checkpointing {
		j.changed.Wait()
	}
}

// settle makes files durable in place.
func (j *journal) settle(fds []int) error {
	if len(fds) > syncEach {
		return j.store.SyncFS(j.root)
	}
	for _, fd := range fds {
		if err := j.store.Sync(fd, true); err != nil {
			return err
		}
	}
	return nil
}

// close ends the journal. If all that it holds can be made durable in place it is removed; otherwise it stays for the next
// mount. Nobody may use it any more.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.awaitCheckpoint()
	j.closed = true
	if j.fd < 0 {
		return nil
	}
	err := j.remove()
	for _, file := range j.files {
		j.closeFile(file)
	}
	if j.fd >= 0 { // it stays
		err = errors.Join(err, j.store.Close(j.fd))
	}
	return err
}

// settleAll makes everything durable in place and removes the journal, so that a copy that is taken now needs no replay. Nobody
// may be changing a file.
func (j *journal) settleAll() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.awaitCheckpoint()
	if j.closed || j.fd < 0 {
		return nil
	}
	return j.remove()
}

// remove makes everything durable in place and removes the journal; the next record makes a new one. The caller holds mu, and
// no checkpoint is under way.
func (j *journal) remove() error {
	// Behind a new generation nothing counts any more, whether the removal reaches the disk or not.
	if err := j.checkpoint(); err != nil {
		return err
	}
	if err := keepTimes(j.store, j.root, func() error { return j.store.Unlink(j.root, CrashJournal) }); err != nil {
		return err
	}
	j.ready.Store(false)
	fd := j.fd
	j.fd = -1
	return j.store.Close(fd)
}
