package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// session holds the login: it logs in, renews the token in the background, and
// logs in again when renewal comes to an end or a request finds the token dead.
// It writes one line to the log at each change of state.
type session struct {
	control *api.Client // renews, with a timeout; its own token is not used
	data    *api.Client // holds the token of the session
	method  loginMethod
	log     *slog.Logger

	cancel context.CancelFunc
	wg     sync.WaitGroup

	// turn is held by whoever logs in. A channel, so that waiting for it ends
	// with the caller's context. It guards sends to fresh.
	turn  chan struct{}
	fresh chan *api.Secret // the newest login, for the background; buffered 1

	record stateRecord
}

func newSession(control, data *api.Client, method loginMethod, log *slog.Logger) *session {
	data.ClearToken()
	return &session{
		control: control, data: data, method: method, log: log,
		cancel: func() {},
		turn:   make(chan struct{}, 1),
		fresh:  make(chan *api.Secret, 1),
	}
}

// start begins renewal in the background. There has been a login.
func (s *session) start() {
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(func() { s.keepAlive(ctx) })
}

// close ends the background and forgets the token and what the method kept.
func (s *session) close() {
	s.cancel()
	s.wg.Wait()
	s.data.ClearToken()
	if m, ok := s.method.(interface{ forget() }); ok {
		s.turn <- struct{}{}
		m.forget()
		s.unlock()
	}
}

// login logs in anew.
func (s *session) login(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	return s.loginLocked(ctx, "")
}

func (s *session) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return contextError(ctx, loginOp, nil)
	}
}

func (s *session) unlock() { <-s.turn }

// loginLocked logs in. A token that is the same as the dead one is no success.
// Called with the turn held.
func (s *session) loginLocked(ctx context.Context, dead string) error {
	client, err := s.anonymous()
	if err != nil {
		return err
	}
	reply, err := s.method.login(ctx, client)
	if err == nil && dead != "" && reply.Auth.ClientToken == dead {
		err = denied("get a new token: `vault login`", fmt.Errorf("the token of %s expires, or was revoked", s.method))
	}
	if err != nil {
		if s.record.loginFailed(err) {
			s.log.Warn("vault login failed", "method", s.method.String(), "error", err)
		}
		return err
	}
	s.data.SetToken(reply.Auth.ClientToken)
	s.record.loggedIn(reply.Auth)
	select {
	case <-s.fresh: // the one before was not taken up yet
	default:
	}
	s.fresh <- reply
	s.log.Info("logged in to vault", "method", s.method.String(),
		"ttl", time.Duration(reply.Auth.LeaseDuration)*time.Second, "renewable", reply.Auth.Renewable)
	return nil
}

// anonymous returns a client without a token.
func (s *session) anonymous() (*api.Client, error) {
	client, err := s.control.CloneWithHeaders()
	if err != nil {
		return nil, configError("", "%w", err)
	}
	client.ClearToken()
	client.SetMaxRetries(0)
	return client, nil
}

// revive is called with the token of a request that was refused. If that token
// is dead it logs in again; nil means that the request is worth repeating. A
// token that lives is refused by policy: then refusal is returned.
func (s *session) revive(ctx context.Context, token string, refusal error) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	if s.data.Token() != token {
		return nil // someone else has logged in meanwhile
	}
	client, err := s.anonymous()
	if err != nil {
		return err
	}
	client.SetToken(token)
	_, err = client.Auth().Token().LookupSelfWithContext(ctx)
	var answered *api.ResponseError
	switch {
	case err == nil:
		return refusal
	case !errors.As(err, &answered):
		return transportError(loginOp, client, err)
	case answered.StatusCode != http.StatusForbidden:
		return loginError(client, err)
	}
	return s.loginLocked(ctx, token)
}

// keepAlive renews the token of each login in turn.
func (s *session) keepAlive(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case login := <-s.fresh:
			for login != nil {
				login = s.renew(ctx, login)
			}
		}
	}
}

// renew keeps one login alive until ctx ends, or a newer login replaces it,
// which it returns. When the token is about to expire it logs in again.
func (s *session) renew(ctx context.Context, login *api.Secret) (newer *api.Secret) {
	if login.Auth.LeaseDuration == 0 {
		return nil // does not expire, or may not look itself up
	}
	watcher, err := s.control.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: login})
	if err != nil {
		s.log.Warn("the vault token is not renewed", "error", err)
		return nil
	}
	go watcher.Start()
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case newer := <-s.fresh:
			return newer
		case renewal := <-watcher.RenewCh():
			s.record.loggedIn(renewal.Secret.Auth)
			s.log.Debug("vault token renewed", "ttl", time.Duration(renewal.Secret.Auth.LeaseDuration)*time.Second)
		case <-watcher.DoneCh():
			s.loginAgain(ctx, login.Auth.ClientToken)
			return nil
		}
	}
}

// loginAgain tries until there is another token than the one that expires, or
// until a request has logged in.
func (s *session) loginAgain(ctx context.Context, expiring string) {
	for failures := 1; ; failures++ {
		if err := s.lock(ctx); err != nil {
			return
		}
		if s.data.Token() != expiring {
			s.unlock()
			return
		}
		err := s.loginLocked(ctx, expiring)
		s.unlock()
		if err == nil {
			return
		}
		// Quick at first, and never more than 5 s late when the cause is gone.
		wait := time.Second << min(failures-1, 3)
		select {
		case <-time.After(min(wait, 5*time.Second)):
		case <-ctx.Done():
			return
		}
	}
}
