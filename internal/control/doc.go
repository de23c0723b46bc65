// Package control lets commands talk to the process that serves a mount,
// through a Unix socket.
//
// It knows nothing of mounts: the process that serves one gives it a [Method]
// for each thing that can be asked, and a command calls [Ask].
//
// # Place
//
// The sockets of root's mounts are in /run/envfs, those of a user's in envfs
// below the user's runtime directory; see [Directory]. The directory has mode
// 0700, each socket 0600, and whoever connects must be root or the user of the
// process: the kernel says who it is. A socket that a process left behind when
// it was killed is replaced, one that still answers is not.
//
// # Protocol
//
// A connection carries one request and one answer, each a JSON object on a
// line of its own:
//
//	{"version":1,"method":"status","params":{…}}
//	{"version":1,"result":{…}}
//	{"version":1,"error":{"code":"method","message":"…"}}
//
// The request must be there, whole, within [RequestTimeout] and be no longer
// than [MaxRequest] bytes; an answer is no longer than [MaxAnswer]. A request of
// a version that the process does not know is answered with the error
// "version". How long a method may take is the asker's affair: the work is
// given up when the connection is closed, and so a method may also hold
// something for as long as the asker stays.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Version is that of the protocol.
const Version = 1

// Bounds of the protocol.
const (
	MaxRequest     = 64 << 10        // bytes
	MaxAnswer      = 4 << 20         // bytes
	RequestTimeout = 5 * time.Second // for a request to arrive, and for an answer to be taken
	maxConnections = 16              // at once; more are turned away
)

// Method does what a request asks for. ctx ends when the asker is gone or the
// server is closed. The result is sent as JSON; an error that is an *[Error] is
// sent as it is, any other with the code [CodeFailed].
type Method func(ctx context.Context, c Call) (result any, err error)

// Call is a request to a method.
type Call struct {
	Peer   Peer
	Params json.RawMessage // as they were sent, or nil
}

// Peer is the process at the other end, by the kernel's word.
type Peer struct {
	UID, GID uint32
	PID      int32
}

// Error is an answer that is no result.
type Error struct {
	Code    string `json:"code"`    // one of the constants below, or a method's own
	Message string `json:"message"` // for people
}

func (e *Error) Error() string { return e.Message }

// The codes of errors.
const (
	CodeVersion = "version" // of the protocol is not known
	CodeRequest = "request" // is malformed
	CodeMethod  = "method"  // is not known
	CodeFailed  = "failed"  // the method did
)

var (
	// ErrNotServing is the error of asking where no process answers.
	ErrNotServing = errors.New("no process answers")
	// ErrServing is the error of listening where another process does.
	ErrServing = errors.New("another process answers there already")
	// ErrPeer is the error of a connection with a user who has no business
	// there.
	ErrPeer = errors.New("the socket belongs to another user")
	// ErrNoDirectory is the error of a user without a runtime directory.
	ErrNoDirectory = errors.New("no runtime directory: XDG_RUNTIME_DIR is not set")
)

// request is the first line of a connection.
type request struct {
	Version int             `json:"version"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// answer is the second: it has a result or an error.
type answer struct {
	Version int             `json:"version"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
}
