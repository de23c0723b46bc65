package vault_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
)

// An agent's token is used without ever being seen; when it dies, that is said
// once, and a new one serves without further ado.
func TestAgentAddsToken(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", "hvs.garbage") // not for the agent
	first := s.Token(time.Hour, "mount")
	a := s.Agent(first)
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", Address: a.Address, Method: vault.MethodAgent, Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	if got := k.State(); got.Address != a.Address || got.Method != "agent" || !got.LoggedIn || !got.Expiry.IsZero() {
		t.Errorf("state: %+v", got)
	}

	s.Revoke(first)
	for range 3 {
		wantClass(t, "the agent's token is dead", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "use_auto_auth_token")
	}
	if n := log.count("vault login failed"); n != 1 {
		t.Errorf("logged %d times; want once:\n%s", n, log.b.String())
	}
	a.SetToken(s.Token(time.Hour, "mount"))
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
	if n := a.Sent(); n != 0 {
		t.Errorf("%d requests had a token", n)
	}
}

// With a login of its own, a client uses an agent or proxy as a mere way to Vault.
func TestUnixProxyWithOwnLogin(t *testing.T) {
	r := userpassRig(t)
	a := r.s.Agent("hvs.garbage")
	r.o.Address = a.Address
	k, _ := r.open(t, slog.LevelInfo)
	_, wrapped := mustWrap(t, k, 1)
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil || a.Sent() == 0 {
		t.Errorf("%v; %d requests with a token", err, a.Sent())
	}
	a.Close()
	wantClass(t, "without the proxy", openError(t, "x", vault.Options{Key: "docs", Address: a.Address, Wait: time.Second}), keyring.ErrUnreachable, a.Address)
}
