// Package audit writes the audit log: who did what to which file, one JSON
// object a line.
//
// It knows nothing of file systems and keys. Commands fill in a [Record] and
// hand it to a [Log], which writes it to a file, to the local syslog, or both.
//
// # Lines
//
// Each line goes out in one write(2), to a file opened with O_APPEND, so that
// several processes may share it. The fields, in this order:
//
//	time         RFC 3339 with nanoseconds, UTC
//	op           create, open, link, unlink, rename, rewrap, rekey, …, or lost
//	write        of an open: true if for writing; left out if false
//	uid gid pid  who asked
//	command      name of that process; left out if it is not known
//	path         plaintext path below the root of the volume; left out if it is not known
//	new_path     of a rename or link; left out otherwise
//	stored_path  ciphertext path below the volume, of a rewrap, which knows no other
//	file_id      hex; left out if it is not known
//	new_file_id  of a rekey, which gives a file another one
//	kek_version  of the key-encryption key; left out if it is not known
//	outcome      "ok", or the name of the error: "EACCES"
//
// # Text
//
// A name in a file system is bytes, a JSON string is not. In command and
// paths each byte that is no part of valid UTF-8 stands as \xNN, with two
// lower-case hexadecimal digits, and each backslash as two, before the text
// becomes a JSON string. Nothing is lost: printf %b of a shell turns the value
// into the bytes again.
//
// # Failures
//
// A record that cannot be written is an error, never silence, and the caller
// decides whether the act may go on. As soon as the place takes lines again,
// the first one has op "lost" and the number of records that are missing in its
// field lost. If the disk is full in the middle of a line, the rest of that
// line is missing, and the next record starts on a line of its own. Lines are
// not synced: the last ones before a power cut may be lost.
//
// The local syslog is written to while the caller waits, as other programs do;
// a logging service that hangs makes them wait. The facility is authpriv, the
// severity info.
package audit

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where records go. Without any of them there is nothing to log.
type Options struct {
	File   string // path of a regular file, appended to; made with mode 0600
	Syslog bool   // the local syslog
}

// Record is one thing that happened.
type Record struct {
	Time          time.Time // zero: now
	Op            string
	Write         bool // of an open: for writing
	UID, GID, PID uint32
	Command       string // name of the process, any bytes
	Path, NewPath string // any bytes
	StoredPath    string // any bytes
	FileID        string // hex
	NewFileID     string // hex
	KEKVersion    int    // 0: not known
	Outcome       unix.Errno
}

// Log writes records. It is safe for concurrent use. A nil *Log takes records
// and drops them.
type Log struct {
	file *file // nil: none

	mu    sync.Mutex
	sinks []*sink // guarded by mu, each with what it points to
	stats Stats   // guarded by mu
}

// Stats say what a log has done since it was opened.
type Stats struct {
	Written uint64 // records, in all places
	Lost    uint64 // records that one place or more did not take
}

// Open opens a log. Its errors name the place.
func Open(o Options) (*Log, error) {
	l := &Log{}
	if o.File != "" {
		path, err := filepath.Abs(o.File)
		if err != nil {
			return nil, err
		}
		if l.file, err = openFile(path); err != nil {
			return nil, err
		}
		l.sinks = append(l.sinks, &sink{place: l.file})
	}
	if o.Syslog {
		s, err := openSyslog()
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.sinks = append(l.sinks, &sink{place: s})
	}
	return l, nil
}

// Record writes a record to all places. With an error, one or more of them does
// not have it.
func (l *Log) Record(r Record) error {
	if l == nil {
		return nil
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	line := r.line()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.sinks {
		errs = append(errs, s.add(line))
	}
	err := errors.Join(errs...)
	if err != nil {
		l.stats.Lost++
	} else {
		l.stats.Written++
	}
	return err
}

// Ready says why a record could not be written now, or nil. Where the last one
// failed it tries again.
func (l *Log) Ready() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.sinks {
		errs = append(errs, s.ready())
	}
	return errors.Join(errs...)
}

// Reopen opens the file by its name anew, after something else has renamed it.
// With an error, records go on to where they went.
func (l *Log) Reopen() error {
	if l == nil || l.file == nil {
		return nil
	}
	f, err := open(l.file.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var old *os.File
	old, l.file.f = l.file.f, f
	return old.Close()
}

// Stats returns a snapshot.
func (l *Log) Stats() Stats {
	if l == nil {
		return Stats{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close ends the log. No record may come later.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.sinks {
		errs = append(errs, s.place.Close())
	}
	return errors.Join(errs...)
}
