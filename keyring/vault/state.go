package vault

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring"
)

// State is what a keyring knows of its server and its login, without asking.
type State struct {
	Address   string
	Namespace string // "" is the root namespace
	Method    string // how it logs in, such as "AppRole" or "token file /run/token"; never a credential

	LoggedIn  bool      // the last login succeeded
	Expiry    time.Time // of the token; zero: it does not expire, or that is not known
	Renewable bool      // the token; it is renewed in the background

	// Unreachable since then: no request has been answered. Zero: the last one was.
	UnreachableSince time.Time
	// LastError is the class of the last failed login, request or item of a
	// batch, one of package keyring's; nil if there was none. It stays when
	// things work again.
	LastError     error
	LastErrorTime time.Time
}

// State returns what the keyring knows at this moment.
func (k *Keyring) State() State {
	s := k.session.record.get()
	s.Address = k.address
	s.Namespace = k.client.Namespace()
	s.Method = k.session.method.String()
	return s
}

// stateRecord keeps the parts of a State that change.
type stateRecord struct {
	mu    sync.Mutex
	state State // guarded by mu
	lost  bool  // the last login failed, and the log says so; guarded by mu
}

func (r *stateRecord) get() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// loggedIn notes a login or a renewal.
func (r *stateRecord) loggedIn(auth *api.SecretAuth) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = false
	r.state.LoggedIn, r.state.Renewable, r.state.Expiry = true, auth.Renewable, time.Time{}
	if auth.LeaseDuration > 0 {
		r.state.Expiry = time.Now().Add(time.Duration(auth.LeaseDuration) * time.Second)
	}
}

// loginFailed notes that there is no login, and returns whether that is news.
func (r *stateRecord) loginFailed(err error) bool {
	if keyring.Class(err) == nil { // the caller went away
		return false
	}
	r.failed(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	news := !r.lost
	r.lost, r.state.LoggedIn = true, false
	return news
}

// foundAgain notes that a request was allowed without a token, and returns
// whether that is news: an agent's login was lost, and is back without another
// one here.
func (r *stateRecord) foundAgain() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.lost
	r.lost, r.state.LoggedIn = false, true
	return news
}

// failed notes an error, if it is of a class.
func (r *stateRecord) failed(err error) {
	class := keyring.Class(err)
	if class == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.LastError, r.state.LastErrorTime = class, time.Now()
}

// unreachable notes whether the server answers, and returns since when it does
// not, or had not until now, and whether that is a change.
func (r *stateRecord) unreachable(now bool) (since time.Time, changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since = r.state.UnreachableSince
	if now == !since.IsZero() {
		return since, false
	}
	r.state.UnreachableSince = time.Time{}
	if now {
		since = time.Now()
		r.state.UnreachableSince = since
	}
	return since, true
}

// note takes account of how a request ended, and writes to the log when the
// server ceases to answer and when it answers again.
func (s *session) note(err error) {
	s.record.failed(err)
	answered := err == nil
	if _, ok := answerOf(err); ok || keyring.Class(err) != nil {
		answered = !errors.Is(err, keyring.ErrUnreachable)
	} else if err != nil {
		return // the caller went away: that says nothing
	}
	if err == nil && s.data.Token() == "" && s.record.foundAgain() {
		s.log.Info("vault accepts the agent's login again")
	}
	since, changed := s.record.unreachable(!answered)
	switch {
	case !changed:
	case answered:
		s.log.Info("vault answers again", "after", time.Since(since).Round(time.Millisecond))
	default:
		s.log.Warn("vault does not answer", "error", err)
	}
}
