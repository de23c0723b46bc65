package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// lineForm is the form of a line, field by field.
type lineForm struct {
	Time       string `json:"time"`
	Op         string `json:"op"`
	Write      bool   `json:"write,omitempty"`
	UID        uint32 `json:"uid"`
	GID        uint32 `json:"gid"`
	PID        uint32 `json:"pid"`
	Command    string `json:"command,omitempty"`
	Path       string `json:"path,omitempty"`
	NewPath    string `json:"new_path,omitempty"`
	StoredPath string `json:"stored_path,omitempty"`
	FileID     string `json:"file_id,omitempty"`
	NewFileID  string `json:"new_file_id,omitempty"`
	KEKVersion int    `json:"kek_version,omitempty"`
	Lost       uint64 `json:"lost,omitempty"`
	Outcome    string `json:"outcome"`
}

// timeForm keeps all nine digits, so that lines can be sorted as text.
const timeForm = "2006-01-02T15:04:05.000000000Z07:00"

// line returns the record as a line, with its end.
func (r Record) line() []byte {
	return encode(lineForm{
		Time: r.Time.UTC().Format(timeForm), Op: r.Op, Write: r.Write,
		UID: r.UID, GID: r.GID, PID: r.PID, Command: escape(r.Command),
		Path: escape(r.Path), NewPath: escape(r.NewPath), StoredPath: escape(r.StoredPath),
		FileID: r.FileID, NewFileID: r.NewFileID, KEKVersion: r.KEKVersion, Outcome: outcome(r.Outcome),
	})
}

// lostLine says that records are missing before it.
func lostLine(n uint64) []byte {
	return encode(lineForm{
		Time: time.Now().UTC().Format(timeForm), Op: "lost", Lost: n, Outcome: "ok",
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: uint32(os.Getpid()),
	})
}

func encode(l lineForm) []byte {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // a path with "&" shall be found with grep
	if err := e.Encode(l); err != nil {
		panic(err) // strings and numbers only
	}
	return line.Bytes()
}

func outcome(e unix.Errno) string {
	if e == 0 {
		return "ok"
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(e))
}

// escape makes valid UTF-8 of any bytes, and loses nothing: see the package
// comment.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}
