package fs

import "sync/atomic"

// Stats says what a mount has done since it was made.
type Stats struct {
	Reads, Writes           uint64 // requests
	BytesRead, BytesWritten uint64 // plaintext
	Opens, Creates, Removes uint64
	Syncs                   uint64
	Faults                  uint64 // operations that failed for a reason that an operator should know of
	OpenHandles             int
	Inodes                  int // that the kernel knows
}

// counters are the running numbers behind Stats.
type counters struct {
	reads, writes, bytesRead, bytesWritten, opens, creates, removes, syncs, faults atomic.Uint64
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Reads: c.reads.Load(), Writes: c.writes.Load(),
		BytesRead: c.bytesRead.Load(), BytesWritten: c.bytesWritten.Load(),
		Opens: c.opens.Load(), Creates: c.creates.Load(), Removes: c.removes.Load(), Syncs: c.syncs.Load(),
		Faults: c.faults.Load(), OpenHandles: s.OpenHandles(), Inodes: s.table.size(),
	}
}
