package main

import "github.com/envfs/envfs/cmd/envfs/internal/mounts"

// clearDead takes away an envfs at the mountpoint whose daemon is gone, as
// after a crash: nothing can be done with it any more, and what was written to
// it is in the ciphertext directory. It reports whether it did.
func (m *mountCommand) clearDead() bool {
	point, err := mounts.Resolve(m.request.Mountpoint)
	if err != nil {
		return false
	}
	table, err := mounts.Read()
	if err != nil {
		return false
	}
	if dead, ok := table.At(point); !ok || !dead.IsEnvfs() {
		return false
	}
	// Lazily: a process may have its working directory there.
	if err := mounts.Unmount(point, true); err != nil {
		m.app.warn("%s: cannot clear away a mount whose daemon is gone: %v", m.request.Mountpoint, err)
		return false
	}
	m.app.warn("%s: cleared away a mount whose daemon was gone", m.request.Mountpoint)
	return true
}
