package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// wrappedSecretID is a secret ID that comes response-wrapped: the file holds a
// wrapping token, which the server exchanges for the secret ID once and never
// again. That nobody exchanged it before proves that nobody has read it.
//
// The secret ID therefore stays, in secret memory, for the logins to come, until
// the keyring is closed. A new wrapping token in the file is taken up at the
// next login, which is how a secret ID that has run out is replaced. A process
// that starts anew needs a new wrapping token.
//
// What passes through the client's library leaves copies on the heap that cannot
// be wiped, as it does for tokens.
//
// Fields are guarded by the session's turn.
type wrappedSecretID struct {
	file  string
	arena *secret.Arena

	spent [sha256.Size]byte // hash of the last wrapping token that was tried and answered
	kept  secretText        // the secret ID; nil before the first exchange
}

func (w *wrappedSecretID) secretID(ctx context.Context, client *api.Client) (string, error) {
	token, err := credentialOf(w.file)
	hash := sha256.Sum256([]byte(token))
	if err == nil && hash != w.spent {
		err = w.exchange(ctx, client, token)
		if err == nil || !errors.Is(err, keyring.ErrUnreachable) {
			w.spent = hash
		}
	}
	switch {
	case w.kept != nil && !errors.Is(err, keyring.ErrUnreachable):
		return w.kept.text(), nil // the file is of no more use, and may be gone
	case err == nil:
		err = denied(hintSpent, errSpent)
	}
	return "", err
}

const hintSpent = "put a new wrapping token there; if nobody of yours has used the old one, someone else has read the secret ID: revoke it"

var errSpent = errors.New("the wrapping token was used already, or has expired")

// exchange gets the secret ID for the wrapping token.
func (w *wrappedSecretID) exchange(ctx context.Context, client *api.Client, token string) error {
	client.SetToken(token)
	reply, err := client.Logical().UnwrapWithContext(ctx, "")
	client.ClearToken()
	var refused *api.ResponseError
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusBadRequest || refused.StatusCode == http.StatusForbidden) {
		return denied(hintSpent, fmt.Errorf("%s: %w", w.file, errSpent))
	}
	if err != nil {
		return loginError(client, err)
	}
	var id string
	if reply != nil {
		id, _ = reply.Data["secret_id"].(string)
	}
	if id == "" {
		return denied("wrap a secret ID: vault write -wrap-ttl=10m -f auth/approle/role/ROLE/secret-id", fmt.Errorf("%s: the wrapping token wraps no secret ID", w.file))
	}
	w.forget()
	w.kept = newSecretText(w.arena, id)
	return nil
}

func (w *wrappedSecretID) forget() {
	w.kept.wipe()
	w.kept = nil
}

// secretText is a text of any length in secret memory.
type secretText []*secret.Key

func newSecretText(a *secret.Arena, text string) secretText {
	var t secretText
	for b := []byte(text); len(b) > 0; {
		n := min(len(b), secret.MaxSize)
		t = append(t, a.Take(b[:n]))
		b = b[n:]
	}
	return t
}

// text is a copy outside secret memory.
func (t secretText) text() string {
	var b []byte
	for _, part := range t {
		b = append(b, part.Bytes()...)
	}
	defer secret.Wipe(b)
	return string(b)
}

func (t secretText) wipe() {
	for _, part := range t {
		part.Wipe()
	}
}
