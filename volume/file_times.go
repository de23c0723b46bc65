package volume

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// keptMtime is the modification time to give back to a backing file. While the kernel holds written pages back it owns the
// modification time, and tells us when it has moved. It has not when a file is written in the tick in which it was created,
// so the time at which the pages arrive here must not become visible when the kernel forgets what it knew.
type keptMtime struct {
	set   atomic.Bool // changed with File.times held
	mtime unix.Timespec
}

// KeepMtime must be called before content changes in a way of whose time the kernel keeps account: Release gives the file back
// the modification time that it has now, unless MtimeSet is called before.
func (f *File) KeepMtime() error {
	if f.kept.set.Load() {
		return nil
	}
	f.times.Lock()
	defer f.times.Unlock()
	if f.kept.set.Load() {
		return nil
	}
	var st unix.Stat_t
	if err := f.v.store.Stat(f.FD(), &st); err != nil {
		return err
	}
	f.kept.mtime = st.Mtim
	f.kept.set.Store(true)
	return nil
}

// MtimeSet records that the modification time was set, so that there is none to give back. The caller holds the times
// (HoldTimes).
func (f *File) MtimeSet() { f.kept.set.Store(false) }

// restoreMtime gives back the modification time that KeepMtime has noted.
func (f *File) restoreMtime() {
	if !f.kept.set.Load() {
		return
	}
	f.times.Lock()
	defer f.times.Unlock()
	if !f.kept.set.Swap(false) {
		return
	}
	if err := f.v.store.SetTimes(f.target(), unix.Timespec{Nsec: unix.UTIME_OMIT}, f.kept.mtime); err != nil {
		f.v.log.Warn("cannot give a file its modification time back", "file_id", f.key.id, "error", err)
	}
}
