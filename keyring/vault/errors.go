package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/envfs/envfs/keyring"
)

// answer is an HTTP reply of the server that is no success.
type answer struct {
	status     int
	messages   []string      // the server's errors
	body       []byte        // may hold results of a batch
	retryAfter time.Duration // of a 429 or 503, or 0
}

func (a *answer) Error() string {
	if len(a.messages) == 0 {
		return fmt.Sprintf("HTTP %d", a.status)
	}
	// The server lists several errors over several lines.
	text := strings.Join(strings.Fields(strings.Join(a.messages, "; ")), " ")
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return fmt.Sprintf("HTTP %d: %s", a.status, text)
}

// says reports whether one of the server's messages holds the text.
func (a *answer) says(text string) bool {
	for _, m := range a.messages {
		if strings.Contains(m, text) {
			return true
		}
	}
	return false
}

// answerOf finds the server's reply in an error.
func answerOf(err error) (*answer, bool) {
	var a *answer
	ok := errors.As(err, &a)
	return a, ok
}

var (
	errBadReply = errors.New("the reply is none of Transit's")
	errItem     = errors.New("refused by the server")
)

// messageClass maps what Transit says of a key or a ciphertext. Nothing but the
// text tells these apart: the status is 400 for each. The texts are the same in
// Vault 1.14 to 1.21 and OpenBao 2.
func messageClass(msg string) (hint string, class error) {
	for _, m := range []struct {
		text  string
		class error
		hint  string
	}{
		{"disallowed by policy (too old)", keyring.ErrRevoked, "the key's min_decryption_version is above the version that wrapped this"},
		{"encryption key not found", keyring.ErrRevoked, hintDeleted},
		{"soft-deleted", keyring.ErrRevoked, hintDeleted + " softly; its operator may restore it"},
		{"no such key version", keyring.ErrRevoked, "that version of the transit key was trimmed"},
		{"version is too new", keyring.ErrUnreachable, "the server does not know this version of the key yet: a standby that lags behind, or a key restored from an older backup"},
		{"missing 'context'", keyring.ErrConfig, "the key was made with derived=true: allow the token to read transit/keys/K"},
		{"decryption not supported", keyring.ErrConfig, ""},
		{"encryption not supported", keyring.ErrConfig, ""},
		{"not supported for this operation", keyring.ErrConfig, ""},
		{"message authentication failed", keyring.ErrCorrupt, ""},
		{"invalid ciphertext", keyring.ErrCorrupt, ""},
		{"illegal base64", keyring.ErrCorrupt, ""},
		{"RSA decrypt", keyring.ErrCorrupt, ""}, // an internal error, HTTP 500
	} {
		if strings.Contains(msg, m.text) {
			return m.hint, m.class
		}
	}
	return "", nil
}

// itemError gives the error of one item of a batch its class.
func (k *Keyring) itemError(v verb, status int, msg string) error {
	hint, class := messageClass(msg)
	switch {
	case class != nil:
	case status >= 500:
		class = keyring.ErrUnreachable
	default: // of a ciphertext that has the right form: it is not the server's
		class = keyring.ErrCorrupt
	}
	return &keyring.Error{Class: class, Op: string(v), Hint: hint, Err: fmt.Errorf("%w: %s", errItem, firstLine(msg))}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 300)]
}

// requestError gives a reply to a whole request its class. A 403 is dealt with
// before, as far as a new login may help.
func requestError(op string, a *answer) error {
	e := &keyring.Error{Op: op, Err: a}
	e.Hint, e.Class = messageClass(strings.Join(a.messages, "\n"))
	switch {
	case e.Class != nil && a.status < 500, e.Class == keyring.ErrCorrupt:
	case a.status == http.StatusForbidden, a.status == http.StatusUnauthorized:
		e.Class, e.Hint = keyring.ErrDenied, "the token's policies must allow this; `vault token lookup` shows them"
	case a.says("missing client token"):
		e.Class, e.Hint = keyring.ErrDenied, "log in: `vault login`, or set VAULT_TOKEN"
	case a.status == http.StatusNotFound && a.says("no handler for route"):
		e.Class, e.Hint = keyring.ErrConfig, "no secrets engine is mounted there: `vault secrets list` shows which are"
	case retryable(a.status):
		e.Class = keyring.ErrUnreachable
		if a.status == http.StatusServiceUnavailable && a.says("sealed") {
			e.Hint = "vault is sealed: an operator must unseal it"
		}
	default: // 400, 404, 405 and whatever a proxy in between says
		e.Class = keyring.ErrConfig
	}
	return e
}

// retryable reports whether a reply may be another one a little later. 412: a
// standby lags behind; 429: quota; 472, 473: a standby that does not forward.
func retryable(status int) bool {
	switch status {
	case http.StatusPreconditionFailed, http.StatusTooManyRequests, http.StatusRequestTimeout, 472, 473:
		return true
	}
	return status >= 500
}

// contextError is [keyring.ContextError], with the reason last if a try before
// the deadline has failed.
func contextError(ctx context.Context, op string, last error) error {
	err := keyring.ContextError(ctx, op)
	if last != nil && errors.Is(err, keyring.ErrUnreachable) {
		return last
	}
	return err
}
