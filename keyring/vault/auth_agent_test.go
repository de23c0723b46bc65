package vault_test

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// agent does what a Vault Agent or Proxy with use_auto_auth_token does: it
// listens on a Unix socket, and adds its token to requests that have none.
type agent struct {
	address string
	token   atomic.Value // string
	sent    atomic.Int64 // requests that came with a token of their own
	server  *http.Server
}

func startAgent(t *testing.T, s *vaulttest.Server, token string) *agent {
	t.Helper()
	to, err := url.Parse(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{address: "unix://" + socket}
	a.token.Store(token)
	a.server = &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		if r.In.Header.Get("X-Vault-Token") != "" {
			a.sent.Add(1)
			return
		}
		r.Out.Header.Set("X-Vault-Token", a.token.Load().(string))
	}}}
	go func() { _ = a.server.Serve(l) }()
	t.Cleanup(func() { _ = a.server.Close() })
	return a
}

// An agent's token is used without ever being seen; when it dies, that is said
// once, and a new one serves without further ado.
func TestAgentAddsToken(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", "hvs.garbage") // not for the agent
	first := s.Token(time.Hour, "mount")
	a := startAgent(t, s, first)
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", Address: a.address, Method: vault.MethodAgent, Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	if got := k.State(); got.Address != a.address || got.Method != "agent" || !got.LoggedIn || !got.Expiry.IsZero() {
		t.Errorf("state: %+v", got)
	}

	s.Revoke(first)
	for range 3 {
		wantClass(t, "the agent's token is dead", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "use_auto_auth_token")
	}
	if n := log.count("vault login failed"); n != 1 {
		t.Errorf("logged %d times; want once:\n%s", n, log.b.String())
	}
	a.token.Store(s.Token(time.Hour, "mount"))
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Errorf("with a new token: %v", err)
	}
	s.Policy("mount", `path "transit/keys/docs" { capabilities = ["read"] }`)
	for range 3 {
		wantClass(t, "policy withdrawn", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "policies")
	}
	if n := log.count("\n"); n != 3 { // login, failure, success again
		t.Errorf("%d lines; want 3:\n%s", n, log.b.String())
	}
	if n := a.sent.Load(); n != 0 {
		t.Errorf("%d requests had a token", n)
	}
}

// With a login of its own, a client uses an agent or proxy as a mere way to Vault.
func TestUnixProxyWithOwnLogin(t *testing.T) {
	r := userpassRig(t)
	a := startAgent(t, r.s, "hvs.garbage")
	r.o.Address = a.address
	k, _ := r.open(t, slog.LevelInfo)
	_, wrapped := mustWrap(t, k, 1)
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil || a.sent.Load() == 0 {
		t.Errorf("%v; %d requests with a token", err, a.sent.Load())
	}
	_ = a.server.Close()
	wantClass(t, "without the proxy", openError(t, "x", vault.Options{Key: "docs", Address: a.address, Wait: time.Second}), keyring.ErrUnreachable, a.address)
}
