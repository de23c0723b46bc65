package volume

import "github.com/envfs/envfs/keyring"

// Stats say what an open volume holds and has done.
type Stats struct {
	Cache keyring.CacheStats // keys of files
	Pool  *keyring.PoolStats // keys for new files; nil where none can be created

	// Unsealed counts the files that were written and closed and wait to be sealed.
	Unsealed int
}

// Stats returns a snapshot.
func (v *Volume) Stats() Stats {
	s := Stats{Cache: v.cache.Stats(), Unsealed: v.sealer.count()}
	if v.pool != nil {
		pool := v.pool.Stats()
		s.Pool = &pool
	}
	return s
}

// count returns how many files wait.
func (s *sealer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}
