package keyring

// PoolStats say what a [Pool] holds.
type PoolStats struct {
	Ready  int // keys that can be had at once
	Target int // how many it means to hold now, which grows with demand
}

// Stats returns a snapshot.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PoolStats{Ready: len(p.ready), Target: p.size}
}
