package vault_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/mitchellh/go-homedir"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
)

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// eventually waits for something that happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

func TestTokenHelper(t *testing.T) {
	s := start(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	homedir.Reset() // the library keeps the first home that it has seen
	t.Cleanup(homedir.Reset)
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(s.Token(0, "mount")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustWrap(t, mustOpen(t, vault.Options{Key: "docs"}), 1)
}

// A token file prevails over the environment, and is read again when its token
// has died.
func TestTokenFileIsReadAgain(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", "hvs.garbage")
	first := s.Token(0, "mount")
	file := writeFile(t, "token", first+"\n")
	k := mustOpen(t, vault.Options{Key: "docs", TokenFile: file})
	_, wrapped := mustWrap(t, k, 1)

	s.Revoke(first)
	wantClass(t, "revoked", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "vault login")
	if err := os.WriteFile(file, []byte(s.Token(0, "mount")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Fatalf("after a new token was put there: %v", err)
	}
}

func TestAppRole(t *testing.T) {
	s := start(t)
	roleID, secretID := s.AppRole("envfs", 0, "mount")
	secretFile := writeFile(t, "secret-id", secretID+"\n")
	for name, o := range map[string]vault.Options{
		"role ID":      {Key: "docs", RoleID: roleID, SecretIDFile: secretFile},
		"role ID file": {Key: "docs", RoleIDFile: writeFile(t, "role-id", roleID+"\n"), SecretIDFile: secretFile, AuthMount: "/approle/"},
	} {
		t.Run(name, func(t *testing.T) { mustWrap(t, mustOpen(t, o), 1) })
	}
	for name, c := range map[string]struct {
		o     vault.Options
		class error
		hint  string
	}{
		"wrong secret ID":        {vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: writeFile(t, "s", "wrong")}, keyring.ErrDenied, "credentials"},
		"wrong role ID":          {vault.Options{Key: "docs", RoleID: "wrong", SecretIDFile: secretFile}, keyring.ErrDenied, "credentials"},
		"secret ID file missing": {vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: "/nonexistent"}, keyring.ErrDenied, "file"},
		"not enabled there":      {vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: secretFile, AuthMount: "elsewhere"}, keyring.ErrDenied, "credentials"},
	} {
		t.Run(name, func(t *testing.T) { wantClass(t, "Open", openError(t, "", c.o), c.class, c.hint) })
	}
}

// All callers whose token died share one login, and succeed.
func TestReloginOnce(t *testing.T) {
	s := start(t)
	roleID, secretID := s.AppRole("envfs", 0, "mount")
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: writeFile(t, "s", secretID),
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	if n := log.count("logged in"); n != 1 {
		t.Fatalf("%d logins at start; want 1", n)
	}
	// Revokes every token of the method, the session's among them.
	if err := s.Root.Sys().RevokePrefix("auth/approle/login"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := log.count("logged in"); n != 2 {
		t.Errorf("%d logins in all; want 2", n)
	}
	if strings.Contains(log.b.String(), secretID) || strings.Contains(log.b.String(), "hvs.") {
		t.Error("the log holds a credential")
	}
}

// A short-lived token is renewed until its end and then replaced, with no
// request failing in between.
func TestRenewalAndRelogin(t *testing.T) {
	s := start(t)
	roleID, secretID := s.AppRole("envfs", time.Second, "mount") // at most 10 s
	s.Write("auth/approle/role/envfs", map[string]any{"token_max_ttl": "3s"})
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: writeFile(t, "s", secretID),
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	_, wrapped := mustWrap(t, k, 1)
	eventually(t, "two further logins and a renewal", func() bool {
		if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
			t.Fatal(err)
		}
		return log.count("logged in") >= 3 && log.count("token renewed") >= 1
	})
}

// A login that is refused for a while is reported once, and made good.
func TestLoginLostAndRestored(t *testing.T) {
	s := start(t)
	roleID, secretID := s.AppRole("envfs", time.Second, "mount")
	secretFile := writeFile(t, "s", secretID)
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: secretFile,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)

	if err := os.WriteFile(secretFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Root.Sys().RevokePrefix("auth/approle/login"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wantClass(t, "token dead, login refused", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "credentials")
	}
	if n := log.count("vault login failed"); n != 1 {
		t.Errorf("the failure was logged %d times; want once", n)
	}
	if err := os.WriteFile(secretFile, []byte(secretID), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "login in the background", func() bool { return log.count("logged in") == 2 })
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Errorf("after the login: %v", err)
	}
}

// A token that lives but lacks a policy is refused; logging in again would only
// burden the server.
func TestPolicyDenialDoesNotLogIn(t *testing.T) {
	s := start(t)
	roleID, secretID := s.AppRole("envfs", 0, "mount")
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", RoleID: roleID, SecretIDFile: writeFile(t, "s", secretID),
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	s.Policy("mount", `path "transit/keys/docs" { capabilities = ["read"] }`)
	for range 3 {
		wantClass(t, "policy withdrawn", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, "policies")
	}
	if n := log.count("logged in"); n != 1 {
		t.Errorf("%d logins; want 1", n)
	}
}

// A token from a file that nears its end and cannot be renewed is reported once;
// the one that replaces it is taken up in the background.
func TestTokenFileNearsItsEnd(t *testing.T) {
	s := start(t)
	renewable := false
	short, err := s.Root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"mount"}, TTL: "4s", Renewable: &renewable})
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "token", short.Auth.ClientToken)
	var log logBuffer
	k := mustOpen(t, vault.Options{Key: "docs", TokenFile: file, Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, wrapped := mustWrap(t, k, 1)
	eventually(t, "the report", func() bool { return log.count("vault login failed") == 1 })
	if err := os.WriteFile(file, []byte(s.Token(0, "mount")), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new token", func() bool { return log.count("logged in") == 2 })
	if n := log.count("vault login failed"); n != 1 {
		t.Errorf("reported %d times; want once", n)
	}
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Error(err)
	}
}
