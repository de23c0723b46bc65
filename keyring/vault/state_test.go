package vault_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
)

func TestState(t *testing.T) {
	s := start(t)
	token := s.Token(30*time.Minute, "mount")
	t.Setenv("VAULT_TOKEN", token)
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", Wait: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	got := k.State()
	if left := time.Until(got.Expiry); left > 30*time.Minute || left < 25*time.Minute {
		t.Errorf("the token expires in %v", left)
	}
	got.Expiry = time.Time{}
	if want := (vault.State{Address: s.Address, Method: "VAULT_TOKEN", LoggedIn: true, Renewable: true}); got != want {
		t.Errorf("%+v\nwant %+v", got, want)
	}

	s.Stop()
	for range 3 {
		if err := unwrapError(t.Context(), k, wrapped[0]); !errors.Is(err, keyring.ErrUnreachable) {
			t.Fatal(err)
		}
	}
	if got := k.State(); !got.LoggedIn || got.LastError != keyring.ErrUnreachable || time.Since(got.LastErrorTime) > time.Minute ||
		got.UnreachableSince.IsZero() || got.UnreachableSince.After(got.LastErrorTime) {
		t.Errorf("during the outage: %+v", got)
	}
	s.Restart()
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Fatal(err)
	}
	if got := k.State(); !got.UnreachableSince.IsZero() || got.LastError != keyring.ErrUnreachable {
		t.Errorf("after the outage: %+v", got)
	}
	for text, want := range map[string]int{"vault does not answer": 1, "vault answers again": 1} {
		if n := log.count(text); n != want {
			t.Errorf("%q is logged %d times; want %d", text, n, want)
		}
	}

	// An item's error counts as one, and no other way to fail hides it.
	s.RotateKey("docs")
	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	if err := unwrapError(t.Context(), k, wrapped[0]); !errors.Is(err, keyring.ErrRevoked) || k.State().LastError != keyring.ErrRevoked {
		t.Errorf("%v; state %+v", err, k.State())
	}

	// Who never expires says so.
	t.Setenv("VAULT_TOKEN", s.RootToken)
	root := mustOpen(t, vault.Options{Key: "docs"}).State()
	if !root.Expiry.IsZero() || root.Renewable || root.LastError != nil {
		t.Errorf("root: %+v", root)
	}
}
