package fs

import (
	"errors"
	"path"
	"sync"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxReported bounds how many different faults are remembered so as to log each once.
const maxReported = 10_000

// reporter logs each fault of a file once, however often an application runs into it.
type reporter struct {
	mu   sync.Mutex
	seen map[fault]bool // guarded by mu
}

// fault identifies what is wrong with which part of what.
type fault struct {
	key   inodeKey
	block int64
	hint  string
	name  string
}

// first reports whether the fault is new.
func (r *reporter) first(f fault) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil || len(r.seen) >= maxReported {
		r.seen = map[fault]bool{}
	}
	if r.seen[f] {
		return false
	}
	r.seen[f] = true
	return true
}

// fail turns an error into what the application sees, and logs it if an operator should know of it.
func (s *Server) fail(op string, n *inode, err error) fuse.Status {
	if hint := hintFor(err); hint != "" {
		s.counters.faults.Add(1)
		f := fault{key: n.key, block: -1, hint: hint}
		var damage *volume.BlockDamage
		if errors.As(err, &damage) {
			f.block = damage.Block
		}
		if s.reporter.first(f) {
			s.logFault(op, n, f, err)
		}
	}
	return statusOf(err)
}

func (s *Server) logFault(op string, n *inode, f fault, err error) {
	args := []any{"op", op, "ciphertext", s.cipherPath(n), "error", err.Error(), "hint", f.hint}
	if file := n.file.Load(); file != nil {
		args = append(args, "file_id", file.ID().String())
	}
	if f.block >= 0 {
		args = append(args, "block", f.block)
	}
	s.log.Error("cannot serve a file", args...)
}

// hintFor says what an operator can do about an error, or "" for errors that are an application's own business.
func hintFor(err error) string {
	switch {
	case errors.Is(err, keyring.ErrDenied):
		return "the key service refuses this key; check the policy and the login of this mount"
	case errors.Is(err, keyring.ErrRevoked):
		return "the key version was revoked or the key deleted; restore it in the key service if that was not intended"
	case errors.Is(err, keyring.ErrUnreachable):
		return "the key service does not answer; files that are open go on working"
	case errors.Is(err, keyring.ErrConfig):
		return "check the Transit mount path and the key name"
	case errors.Is(err, keyring.ErrCorrupt):
		return "the wrapped key in the header is damaged or belongs to another key"
	case volume.IsDamage(err):
		return "the ciphertext was changed or damaged; restore the file from a backup, other files are not affected"
	}
	return ""
}

// cipherPath returns the path of n below the ciphertext directory, as stored, for messages.
func (s *Server) cipherPath(n *inode) string {
	p := ""
	for n.id != rootID {
		at, ok := s.table.location(n)
		if !ok {
			return "(deleted)/" + p
		}
		p = path.Join(at.name, p)
		n = at.parent
	}
	if p == "" {
		return "."
	}
	return p
}
