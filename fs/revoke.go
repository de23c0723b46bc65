package fs

import (
	"github.com/envfs/envfs/keyring"
)

// keyRefused takes the pages of the files that use a refused key out of the kernel's cache. The kernel writes dirty ones
// back first, which works while the key serves for a last time.
func (s *Server) keyRefused(w keyring.Wrapped) {
	for _, n := range s.table.all() {
		f := n.file.Load()
		if f == nil || !f.Uses(w) {
			continue
		}
		if err := s.dev.InvalidateInode(n.id, 0, 0); err != nil {
			s.log.Warn("the kernel would not drop the pages of a file whose key was refused",
				"ciphertext", s.cipherPath(n), "error", err)
		}
	}
}
