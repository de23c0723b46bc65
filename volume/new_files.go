package volume

import (
	"errors"
	"sync"
)

// newFiles are the files whose first header was written without a sync. Nobody has been promised that they exist.
type newFiles struct {
	mu    sync.Mutex // a leaf lock
	files map[*File]struct{}
}

func (n *newFiles) add(files ...*File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files == nil {
		n.files = map[*File]struct{}{}
	}
	for _, f := range files {
		n.files[f] = struct{}{}
	}
}

// remove reports whether f was one of them.
func (n *newFiles) remove(f *File) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.files[f]
	delete(n.files, f)
	return ok
}

func (n *newFiles) take() (files []*File) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.files {
		files = append(files, f)
	}
	n.files = nil
	return files
}

// headerMayWait reports whether the header that has just been written may become durable later.
func (f *File) headerMayWait() bool {
	h := &f.header
	if !h.fresh || h.epoch != f.v.creations.Load() {
		return false
	}
	f.v.newFiles.add(f)
	return h.epoch == f.v.creations.Load() // once more: SyncNewFiles may have come before add
}

// SyncNewFiles must be called before an application is told that a directory is durable. What has a durable name must open, and
// that takes a header; so the files that were made lately are synced.
func (v *Volume) SyncNewFiles() error {
	v.creations.Add(1)
	files := v.newFiles.take()
	if len(files) > sealEach {
		if err := v.store.SyncFS(v.Root()); err != nil {
			v.newFiles.add(files...)
			return err
		}
		return nil
	}
	var errs []error
	for _, f := range files {
		if !f.Retain() {
			continue // sealed, or deleted
		}
		if err := v.store.Sync(f.FD(), true); err != nil {
			v.newFiles.add(f)
			errs = append(errs, err)
		}
		f.Release()
	}
	return errors.Join(errs...)
}
