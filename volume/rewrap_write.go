package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
)

// write replaces slots, group by group. No slot is written over while the other one may not be on disk yet, which is what
// makes a power cut harmless. So for each group:
//
//  1. sync: the slots that count are durable, whoever wrote them, and so are those that step 3 wrote for the group before;
//  2. write the second slots of the group before: its old keys are gone;
//  3. write the first slots of this group: the new key, in the slot that did not count and does from now on.
func (r *rewrap) write(groups <-chan []*rewrapItem) error {
	var before []*rewrapItem
	for group := range groups {
		if err := r.sync(before, group); err != nil {
			r.closeItems(before)
			r.closeItems(group)
			return err
		}
		r.closeItems(r.writeSecond(before))
		var err error
		if before, err = r.writeFirst(group); err != nil {
			r.closeItems(before)
			return err
		}
	}
	defer func() { r.closeItems(before) }()
	if err := r.sync(before); err != nil {
		return err
	}
	before = r.writeSecond(before)
	return r.sync(before)
}

// sync makes files durable: few of them one by one, many together with all of the file system.
func (r *rewrap) sync(groups ...[]*rewrapItem) error {
	n := 0
	for _, group := range groups {
		n += len(group)
	}
	together := n > sealEach
	if together {
		if err := r.store.SyncFS(r.root.fd()); err != nil {
			return r.root.failed("sync", "", err)
		}
	}
	for _, group := range groups {
		for _, it := range group {
			if together && it.dev == r.dev {
				continue
			}
			if err := r.store.Sync(it.fd, true); err != nil {
				return r.root.failed("sync", it.rel, err)
			}
		}
	}
	return nil
}

// writeFirst gives each file of a group its new key, and returns the files that have it. With an error, that is the audit's,
// the rest of the group is closed.
func (r *rewrap) writeFirst(group []*rewrapItem) (kept []*rewrapItem, err error) {
	for i, it := range group {
		if it.spare {
			kept = append(kept, it)
			continue
		}
		if err := r.audit().ready(); err != nil {
			r.closeItems(group[i:])
			return kept, err
		}
		written, err := r.writeNew(it)
		switch {
		case err != nil:
			r.failItem(it, err)
		case !written:
			r.count.files.Add(-1)
			r.count.empty.Add(1)
			r.closeItem(it)
		default:
			r.count.rewrapped.Add(1)
			kept = append(kept, it)
			if err := r.audit().record(KeyChange{Path: it.rel, ID: it.id, KEK: versionOf(it.new)}); err != nil {
				r.closeItems(group[i+1:])
				return kept, err
			}
		}
	}
	return kept, nil
}

// errOtherKey: the file has got another key since it was looked at, as one that was emptied and written anew.
var errOtherKey = errors.New("the file changes its key again and again")

// writeNew writes one first slot. It reports false for a file that has become empty.
func (r *rewrap) writeNew(it *rewrapItem) (written bool, err error) {
	for range 3 {
		written, err = r.replace(it, false)
		if !errors.Is(err, errOtherKey) {
			return written, err
		}
		// Rare enough for a request of its own. The work is not to be stopped half-way, so no context ends it.
		answers, err := r.request(context.Background(), []keyring.Wrapped{it.old})
		if err == nil {
			err = answers[0].Err
		}
		if err != nil {
			return false, err
		}
		it.new = answers[0].Wrapped
	}
	return false, err
}

// writeSecond writes the other slot of each file, where that still holds an old key, and returns the files that went well.
func (r *rewrap) writeSecond(group []*rewrapItem) []*rewrapItem {
	kept := group[:0]
	for _, it := range group {
		_, err := r.replace(it, true)
		if err != nil && !errors.Is(err, errOtherKey) {
			r.uncount(it)
			r.failItem(it, fmt.Errorf("removing the old key from the other slot: %w", err))
			continue
		}
		kept = append(kept, it)
	}
	return kept
}

// uncount takes back that a file was counted as done.
func (r *rewrap) uncount(it *rewrapItem) {
	if it.spare {
		r.count.current.Add(-1)
	} else {
		r.count.rewrapped.Add(-1)
	}
}

// replace writes the slot of a file that does not count, with the new key and the sealed part of the one that does. With
// second it only does so if that slot holds an old key. It reports false if there is no header any more. If the file has
// got another old key it says errOtherKey, and the item holds that.
func (r *rewrap) replace(it *rewrapItem, second bool) (written bool, err error) {
	if !r.Alone {
		if err := lockHeader(it.fd, r.layout.HeaderSize()); err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, unlockHeader(it.fd, r.layout.HeaderSize())) }()
	}
	var st unix.Stat_t
	h, err := r.readHeader(it.fd, &st)
	if err != nil || h == nil {
		return false, err
	}
	if h.slot.Sequence != it.sequence {
		// The mount has written since, and perhaps not synced: what is written now goes over the slot that it has replaced.
		if err := r.store.Sync(it.fd, true); err != nil {
			return false, err
		}
	}
	it.sequence = h.slot.Sequence
	if now := keyring.Wrapped(h.slot.Wrapped); now != it.old && now != it.new {
		if it.old = now; versionOf(now) < r.version {
			return false, errOtherKey
		}
		it.new = now
	}
	if second && !h.otherIsOld(r.version) {
		return true, nil
	}
	if err := r.writeSlot(it, h, &st); err != nil {
		return false, err
	}
	it.sequence, it.old = h.slot.Sequence+1, it.new
	return true, nil
}

// writeSlot writes the slot and gives the file its times back.
func (r *rewrap) writeSlot(it *rewrapItem, h *bareHeader, st *unix.Stat_t) error {
	slot := make([]byte, r.layout.SlotSize)
	err := crypto.EncodeSlot(slot, crypto.Slot{Sequence: h.slot.Sequence + 1, Wrapped: string(it.new), Sealed: h.slot.Sealed})
	if err != nil {
		return err
	}
	if _, err := r.store.WriteAt(it.fd, slot, int64(1-h.index)*r.layout.SlotSize); err != nil {
		return err
	}
	target := backing.Target{FD: it.fd}
	if err := r.store.SetTimes(target, st.Atim, st.Mtim); err != nil {
		return fmt.Errorf("restoring its times: %w", err)
	}
	if h.sealed || r.Alone {
		return nil // nobody writes: that would unseal it first, and wait for the lock
	}
	// An application may have written since the look at the times. That the file is longer or shorter shows it; what was
	// written within its size in these microseconds does not, and keeps the time of the write before.
	var now unix.Stat_t
	if err := r.store.Stat(it.fd, &now); err != nil || now.Size == st.Size {
		return err
	}
	return r.store.SetTimes(target, unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW})
}
