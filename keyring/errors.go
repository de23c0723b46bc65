package keyring

import (
	"context"
	"errors"
)

// The classes of failure. Each error of a key service is of exactly one class;
// errors.Is finds it, and so does [Class].
var (
	// ErrDenied: the service refuses: policy, or a login that fails. For the
	// local keyring: a wrong passphrase.
	ErrDenied = errors.New("access denied by the key service")
	// ErrRevoked: the KEK, or the version of it that this needs, is gone or no
	// longer allowed.
	ErrRevoked = errors.New("key revoked")
	// ErrUnreachable: no answer. Network, sealed, overloaded, a stale standby:
	// trying again later may help.
	ErrUnreachable = errors.New("key service unreachable")
	// ErrCorrupt: a wrapped key that cannot be authenticated: damaged, forged,
	// or of another KEK.
	ErrCorrupt = errors.New("wrapped key cannot be authenticated")
	// ErrConfig: the service answers but is not set up as it was asked: no such
	// mount, no such key at init, a key of the wrong kind.
	ErrConfig = errors.New("key service misconfigured")
)

// Error is a failure of a key service with its class.
type Error struct {
	Class error  // one of the classes above
	Op    string // what failed, such as "unwrap"; may be empty
	Hint  string // what the user may do about it, for a line of its own; may be empty
	Err   error  // the cause; may be nil
}

func (e *Error) Error() string {
	msg := e.Class.Error()
	if e.Op != "" {
		msg = e.Op + ": " + msg
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap leads to the class and to the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}

// Class returns the class of err, or nil if it has none (a cancelled context,
// or a mistake of the program).
func Class(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	for _, class := range []error{ErrDenied, ErrRevoked, ErrUnreachable, ErrCorrupt, ErrConfig} {
		if errors.Is(err, class) {
			return class
		}
	}
	return nil
}

// HintOf returns the hint that err carries, or "".
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// ContextError turns the end of a context into an error: a deadline that passed
// means a service that did not answer in time, [ErrUnreachable]; a cancelled
// caller is just that, and the error has no class. It is nil if ctx has not
// ended.
func ContextError(ctx context.Context, op string) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return &Error{Class: ErrUnreachable, Op: op, Err: err}
	}
	return err
}

// answered reports whether err is an answer of the service, which stands until
// someone changes something there, rather than the lack of one.
func answered(err error) bool {
	class := Class(err)
	return class != nil && class != ErrUnreachable
}
