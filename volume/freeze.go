package volume

// Freeze makes the ciphertext directory complete and still: it seals every file, open ones among them, makes everything
// durable in place, and keeps the sealer at rest until thaw is called. The caller lets nobody change a file or a name from before the
// call until then; reading goes on. open is called to get the files that are open, each retained for this call.
//
// A file whose key may not be used any more, or whose header cannot be written, stays unsealed, which the log tells and
// unsealed counts. On an error, which is that of a sync, nothing is held.
func (v *Volume) Freeze(open func() []*File) (thaw func(), unsealed int, err error) {
	s := v.sealer
	s.round.Lock()
	defer func() {
		if err != nil {
			s.round.Unlock()
		}
	}()
	// What waits for its seal may be unknown to the caller, because the kernel has forgotten it. What a reader takes up
	// again meanwhile is known to the caller, who is asked next.
	if err := s.flushHeld(); err != nil {
		return nil, 0, err
	}
	files := open()
	defer func() {
		for _, f := range files {
			f.Release()
		}
	}()
	if err := v.syncAll(files); err != nil {
		return nil, 0, err
	}
	for _, f := range files {
		if err := f.sealOpen(); err != nil {
			v.log.Error("cannot seal an open file; it stays readable as it is", "file_id", f.key.id, "error", err)
			unsealed++
		}
	}
	if err := v.journal.settleAll(); err != nil {
		return nil, 0, err
	}
	if err := v.store.SyncFS(int(v.root.Fd())); err != nil {
		return nil, 0, err
	}
	return s.round.Unlock, unsealed, nil
}

// syncAll makes the data of all files durable by one sync of the whole file system, which takes the names along.
func (v *Volume) syncAll(files []*File) error {
	before := make([]unsynced, len(files))
	for i, f := range files {
		f.promised.Store(true)
		before[i] = f.extents.takeUnsynced(false)
	}
	err := v.store.SyncFS(int(v.root.Fd()))
	if err == nil {
		return nil
	}
	for i, f := range files {
		f.extents.restoreUnsynced(before[i])
	}
	return err
}

// sealOpen seals a file that stays open; the next write unseals it. The data must be durable, and nobody may be changing it.
func (f *File) sealOpen() error {
	f.life.Lock()
	defer f.life.Unlock()
	if f.closed || f.unlinked.Load() || !f.writable || f.header.get() != headerUnsealed {
		return nil
	}
	f.restoreMtime()
	if err := f.key.check(); err != nil {
		return err
	}
	return f.seal()
}
