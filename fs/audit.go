package fs

import (
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// AuditEvent says who did what to which file.
type AuditEvent struct {
	Time    time.Time
	Op      string // create, open, unlink, rename, link
	Write   bool   // of an open: for writing
	UID     uint32
	GID     uint32
	PID     uint32
	Command string // name of the process, as /proc shows it; empty if it is gone
	Path    string // plaintext path below the mount point
	NewPath string // of a rename or link
	FileID  string // hex; empty if it is not known, as for a file that is not open
	KEK     int    // version of the key-encryption key; 0 if it is not known
	Outcome unix.Errno
}

// Auditor takes notes of what happens to files. Record must not call back into the file system.
type Auditor interface {
	Record(e AuditEvent) error
}

// errNotLogged refuses what could not be logged although it must be.
const errNotLogged = unix.EIO

// note records an event, unless nobody wants to know. It returns the status to answer with: where the log is required and
// cannot be written, the call is refused.
func (s *Server) note(e AuditEvent, caller *fuse.Caller, status fuse.Status) fuse.Status {
	if s.opts.Audit == nil {
		return status
	}
	e.Time = time.Now()
	e.UID, e.GID, e.PID = caller.Uid, caller.Gid, caller.Pid
	e.Command = commandOf(caller.Pid)
	e.Outcome = unix.Errno(status)
	err := s.opts.Audit.Record(e)
	if err == nil {
		return status
	}
	if s.reporter.first(fault{name: "audit", hint: err.Error()}) {
		s.log.Error("cannot write the audit log", "error", err)
	}
	if s.opts.AuditRequired {
		return fuse.Status(errNotLogged)
	}
	return status
}

// mayAct is asked before an entry is removed or renamed, which cannot be taken back once it turns out that it could not be
// logged: with a required log, an unusable one refuses the call beforehand.
func (s *Server) mayAct() fuse.Status {
	if s.opts.Audit == nil || !s.opts.AuditRequired {
		return fuse.OK
	}
	if ready, ok := s.opts.Audit.(interface{ Ready() error }); ok && ready.Ready() != nil {
		return fuse.Status(errNotLogged)
	}
	return fuse.OK
}

// describe fills in what an open file tells about itself.
func (e AuditEvent) describe(f *volume.File) AuditEvent {
	if f != nil && e.Op != "" { // without one, nobody wants to know
		e.FileID = f.ID().String()
		e.KEK = f.KEKVersion()
	}
	return e
}

// eventAt is an event on a name in a directory.
func (s *Server) eventAt(op string, dir uint64, name string) AuditEvent {
	if s.opts.Audit == nil {
		return AuditEvent{}
	}
	return AuditEvent{Op: op, Path: path.Join(s.plainPath(s.table.get(dir)), name)}
}

// eventOn is an event on an inode.
func (s *Server) eventOn(op string, n *inode) AuditEvent {
	if s.opts.Audit == nil {
		return AuditEvent{}
	}
	return AuditEvent{Op: op, Path: s.plainPath(n)}.describe(n.file.Load())
}

// identify fills in what the header of a file says that may not be open.
func (s *Server) identify(e *AuditEvent, p place) {
	if s.opts.Audit == nil {
		return
	}
	if id, kek, ok := s.vol.Identify(p.fd, p.name.Stored); ok {
		e.FileID, e.KEK = id.String(), kek
	}
}

// plainPath returns the path of n below the mount point. Parts that cannot be decoded stand as they are stored.
func (s *Server) plainPath(n *inode) string {
	if n == nil {
		return "(unknown)"
	}
	p := ""
	for n.id != rootID {
		at, ok := s.table.location(n)
		if !ok {
			return "(deleted)/" + p
		}
		p = path.Join(s.plainName(at), p)
		n = at.parent
	}
	return "/" + p
}

func (s *Server) plainName(at link) string {
	dir, release, err := s.acquire(at.parent)
	if err != nil {
		return at.name
	}
	defer release()
	name, err := s.vol.DecodeName(dir, at.name)
	if err != nil {
		return at.name
	}
	return name
}

// commandOf returns the name of a process.
func commandOf(pid uint32) string {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}
