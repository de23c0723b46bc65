// Package keyring is the contract between envfs and a key service, and three
// pieces that work over any such service: [Pool], [Batcher] and [Cache].
//
// A key service holds the key-encryption key (KEK) and never gives it away. It
// wraps the data-encryption keys (DEKs) that envfs makes and unwraps them
// again. Implementations live beside this package: keyring/vault (Vault
// Transit) and keyring/local (a passphrase, for one machine without Vault);
// keyring/keyringtest holds the suite of tests that each of them passes. What
// the wrapped bytes mean is the caller's affair: this package sees payloads of
// any size up to [secret.MaxSize].
//
// Whoever uses a key service distinguishes two kinds of bad news, and never
// mixes them up: an answer ("no": [ErrDenied], [ErrRevoked], [ErrCorrupt],
// [ErrConfig]) and no answer ([ErrUnreachable]).
package keyring

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/envfs/envfs/internal/secret"
)

// DefaultBatch is the largest number of items sent in one request: the cap that
// Vault has unless it is configured.
const DefaultBatch = 128

// Keyring wraps and unwraps keys. It is safe for concurrent use. When the context
// of a call ends, the error is that of [ContextError].
type Keyring interface {
	// Wrap encrypts each key under the newest version of the KEK. Results keep
	// the order of keys. It is all or nothing: with an error no result is
	// given. The keys stay the caller's, who may wipe them after the return.
	Wrap(ctx context.Context, keys []*secret.Key) ([]Wrapped, error)

	// Unwrap decrypts each item. Results keep the order of wrapped, and an
	// item's failure is that item's: its Err is set, the others are there. The
	// error beside them is for the whole request (unreachable, denied); then
	// there are no results. The keys become the caller's, who wipes them.
	Unwrap(ctx context.Context, wrapped []Wrapped) ([]Unwrapped, error)
}

// Unwrapped is one result of [Keyring.Unwrap]: either Key or Err is set.
type Unwrapped struct {
	Key *secret.Key
	Err error
}

// Rewrapper is a Keyring that moves wrapped keys to the newest version of the
// KEK without showing them to the caller. Items already there come back as
// they were. Order and failures are as in [Keyring.Unwrap].
type Rewrapper interface {
	Rewrap(ctx context.Context, wrapped []Wrapped) ([]Rewrapped, error)
}

// Rewrapped is one result of [Rewrapper.Rewrap]: either Wrapped or Err is set.
type Rewrapped struct {
	Wrapped Wrapped
	Err     error
}

// VersionReader is a Keyring that knows the newest version of its KEK.
type VersionReader interface {
	LatestVersion(ctx context.Context) (int, error)
}

// Unwrapper unwraps keys, each with an answer of its own, in order; a [Batcher]
// is one. The keys become the caller's.
type Unwrapper interface {
	UnwrapAll(ctx context.Context, wrapped []Wrapped) []Unwrapped
}

// Wrapped is a wrapped key in the key service's own form, such as
// "vault:v3:…" or "local:v1:…": printable ASCII. It is no secret.
type Wrapped string

// MaxWrapped bounds the length in bytes of a wrapped key: what an RSA-16384 key
// would make, and far more than fits a header slot.
const MaxWrapped = 4096

var errNotWrapped = errors.New("not a wrapped key of the form service:vN:base64")

// Version returns the version of the KEK that wrapped the key: the number
// between ":v" and the next ":". The error is of class [ErrCorrupt].
func (w Wrapped) Version() (int, error) {
	service, _, _ := strings.Cut(string(w), ":")
	version, _, err := w.Parse(service)
	return version, err
}

// Parse splits a wrapped key of the named service into the version of its KEK
// and the rest, in standard base64, which is not decoded. What is not exactly
// of that form is refused with an error of class [ErrCorrupt], so that the same
// key has one spelling only.
func (w Wrapped) Parse(service string) (version int, sealed string, err error) {
	corrupt := &Error{Class: ErrCorrupt, Err: errNotWrapped}
	rest, ok := strings.CutPrefix(string(w), service+":v")
	if !ok || len(w) > MaxWrapped {
		return 0, "", corrupt
	}
	digits, sealed, _ := strings.Cut(rest, ":")
	// Atoi alone would accept a sign and leading zeros.
	version, err = strconv.Atoi(digits)
	if err != nil || version < 1 || strconv.Itoa(version) != digits {
		return 0, "", corrupt
	}
	// Decoders of base64 skip line breaks.
	if sealed == "" || strings.IndexFunc(sealed, notBase64) >= 0 {
		return 0, "", corrupt
	}
	return version, sealed, nil
}

func notBase64(r rune) bool {
	alphabet := 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
	return !alphabet && r != '+' && r != '/' && r != '='
}
