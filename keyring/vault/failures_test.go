package vault_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

const mountPolicy = `
path "transit/encrypt/docs" { capabilities = ["update"] }
path "transit/decrypt/docs" { capabilities = ["update"] }
path "transit/keys/docs"    { capabilities = ["read"] }`

// start runs a server with the key docs and a policy "mount" for it.
func start(t *testing.T) *vaulttest.Server {
	t.Helper()
	clearEnv(t)
	s := vaulttest.Start(t)
	s.CreateKey("docs", nil)
	s.Policy("mount", mountPolicy)
	t.Setenv("VAULT_ADDR", s.Address)
	return s
}

// openError opens with a token in the environment and returns the error.
func openError(t *testing.T, token string, o vault.Options) error {
	t.Helper()
	t.Setenv("VAULT_TOKEN", token)
	o.Arena = secret.NewArena(nil)
	k, err := vault.Open(t.Context(), o)
	if err == nil {
		k.Close()
	}
	return err
}

func wantClass(t *testing.T, what string, err, class error, hint string) {
	t.Helper()
	if keyring.Class(err) != class {
		t.Errorf("%s: %v; want class %q", what, err, class)
	}
	if !strings.Contains(keyring.HintOf(err), hint) {
		t.Errorf("%s: hint %q; want one with %q", what, keyring.HintOf(err), hint)
	}
}

// unwrapError unwraps one item and returns its error, or the request's.
func unwrapError(ctx context.Context, k *vault.Keyring, w keyring.Wrapped) error {
	out, err := k.Unwrap(ctx, []keyring.Wrapped{w})
	if err != nil {
		return err
	}
	return out[0].Err
}

func TestOpenRefusals(t *testing.T) {
	s := start(t)
	s.CreateKey("signer", map[string]any{"type": "ed25519"})
	s.Policy("blind", `path "transit/encrypt/*" { capabilities = ["create", "update"] } path "transit/decrypt/*" { capabilities = ["update"] }`)
	root, revoked := s.RootToken, s.Token(0, "mount")
	s.Revoke(revoked)

	for _, c := range []struct {
		name, token string
		o           vault.Options
		class       error
		hint        string
	}{
		{"missing key", root, vault.Options{Key: "nodocs"}, keyring.ErrConfig, "vault write -f transit/keys/nodocs"},
		{"missing key, token may only encrypt and decrypt", s.Token(0, "blind"), vault.Options{Key: "nodocs"}, keyring.ErrConfig, "vault write -f transit/keys/nodocs"},
		{"wrong mount", root, vault.Options{Key: "docs", Mount: "elsewhere"}, keyring.ErrConfig, "vault secrets list"},
		{"key that cannot encrypt", root, vault.Options{Key: "signer"}, keyring.ErrConfig, "aes256-gcm96"},
		{"no key name", root, vault.Options{}, keyring.ErrConfig, ""},
		{"key name with a slash", root, vault.Options{Key: "docs/rotate"}, keyring.ErrConfig, ""},
		{"mount that climbs", root, vault.Options{Mount: "transit/../sys", Key: "docs"}, keyring.ErrConfig, ""},
		{"revoked token", revoked, vault.Options{Key: "docs"}, keyring.ErrDenied, "vault login"},
		{"garbage token", "hvs.garbage", vault.Options{Key: "docs"}, keyring.ErrDenied, "vault login"},
		{"token with a space", "a b", vault.Options{Key: "docs"}, keyring.ErrDenied, "vault login"},
		{"token file missing", root, vault.Options{Key: "docs", TokenFile: "/nonexistent"}, keyring.ErrDenied, "file"},
		{"AppRole without secret ID", root, vault.Options{Key: "docs", RoleID: "x"}, keyring.ErrConfig, ""},
		{"unreachable", root, vault.Options{Key: "docs", Address: "http://127.0.0.1:1", Wait: time.Second}, keyring.ErrUnreachable, "VAULT_ADDR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantClass(t, "Open", openError(t, c.token, c.o), c.class, c.hint)
		})
	}
	if secret, err := s.Root.Logical().Read("transit/keys/nodocs"); err != nil || secret != nil {
		t.Errorf("the missing key was created: %v, %v", secret, err)
	}
}

func TestNoToken(t *testing.T) {
	start(t)
	t.Setenv("HOME", t.TempDir())
	wantClass(t, "Open", openError(t, "", vault.Options{Key: "docs"}), keyring.ErrDenied, "vault login")
}

// What an open keyring hears when an operator changes something.
func TestAnswers(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(0, "mount"))
	k := mustOpen(t, vault.Options{Key: "docs"})
	_, old := mustWrap(t, k, 1)
	s.RotateKey("docs")
	keys, current := mustWrap(t, k, 1)

	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	wantClass(t, "version too old", unwrapError(t.Context(), k, old[0]), keyring.ErrRevoked, "min_decryption_version")
	out, err := k.Unwrap(t.Context(), []keyring.Wrapped{old[0], current[0]})
	if err != nil || keyring.Class(out[0].Err) != keyring.ErrRevoked || out[1].Err != nil || !out[1].Key.Equal(keys[0]) {
		t.Errorf("old beside current: %v, %v", err, out)
	}
	_, err = k.Rewrap(t.Context(), old)
	wantClass(t, "rewrap without the right to", err, keyring.ErrDenied, "policies")

	s.Policy("mount", `path "transit/keys/docs" { capabilities = ["read"] }`)
	wantClass(t, "policy withdrawn", unwrapError(t.Context(), k, current[0]), keyring.ErrDenied, "policies")
	s.Policy("mount", mountPolicy)
	if err := unwrapError(t.Context(), k, current[0]); err != nil {
		t.Errorf("policy granted again: %v", err)
	}

	s.DeleteKey("docs")
	wantClass(t, "key deleted", unwrapError(t.Context(), k, current[0]), keyring.ErrRevoked, "deleted")
	_, err = k.Wrap(t.Context(), keys)
	wantClass(t, "wrap after the key was deleted", err, keyring.ErrRevoked, "deleted")
	if secret, err := s.Root.Logical().Read("transit/keys/docs"); err != nil || secret != nil {
		t.Errorf("the deleted key was created again: %v, %v", secret, err)
	}
	if err := s.Root.Sys().Unmount("transit"); err != nil {
		t.Fatal(err)
	}
	if class := keyring.Class(unwrapError(t.Context(), k, current[0])); class != keyring.ErrConfig && class != keyring.ErrDenied {
		t.Errorf("engine unmounted: class %v", class)
	}
}

func TestNoAnswer(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(0, "mount"))
	k := mustOpen(t, vault.Options{Key: "docs", Wait: time.Second})
	keys, wrapped := mustWrap(t, k, 1)
	works := func(when string) {
		t.Helper()
		out, err := k.Unwrap(t.Context(), wrapped)
		if err != nil || out[0].Err != nil || !out[0].Key.Equal(keys[0]) {
			t.Fatalf("%s: %v, %v", when, err, out)
		}
	}
	s.Seal()
	wantClass(t, "sealed", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrUnreachable, "unseal")
	s.Unseal()
	works("unsealed")

	s.Stop()
	wantClass(t, "stopped", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrUnreachable, "VAULT_ADDR")
	s.Restart()
	works("restarted")

	s.Pause()
	wantClass(t, "silent", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrUnreachable, "")
	s.Resume()
	works("resumed")
}

// A server that is silent holds a call no longer than the caller wants to wait, however long the keyring would. Where this is
// broken the calls do not come back.
func TestNoAnswerToAnImpatientCaller(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(0, "mount"))
	k := mustOpen(t, vault.Options{Key: "docs", Wait: time.Hour})
	_, wrapped := mustWrap(t, k, 1)
	s.Pause()
	defer s.Resume()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	wantClass(t, "with a deadline", unwrapError(ctx, k, wrapped[0]), keyring.ErrUnreachable, "")
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := unwrapError(ctx, k, wrapped[0]); !errors.Is(err, context.Canceled) || keyring.Class(err) != nil {
		t.Errorf("interrupted: %v; want context.Canceled without a class", err)
	}
}

// A call that begins during an outage succeeds if the outage ends in time.
func TestRetryOutlastsOutage(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(0, "mount"))
	k := mustOpen(t, vault.Options{Key: "docs", Wait: 30 * time.Second})
	_, wrapped := mustWrap(t, k, 1)
	s.Seal()
	done := make(chan error, 1)
	go func() { done <- unwrapError(t.Context(), k, wrapped[0]) }()
	select {
	case err := <-done:
		t.Fatalf("answered by a sealed server: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	s.Unseal()
	if err := <-done; err != nil {
		t.Fatalf("after the outage: %v", err)
	}
}

func TestTokenMayNotReadKey(t *testing.T) {
	s := start(t)
	s.Policy("blind", `path "transit/encrypt/docs" { capabilities = ["update"] } path "transit/decrypt/docs" { capabilities = ["update"] } path "transit/rewrap/docs" { capabilities = ["update"] }`)
	t.Setenv("VAULT_TOKEN", s.Token(0, "blind"))
	k := mustOpen(t, vault.Options{Key: "docs"})
	if _, known := k.Info(); known {
		t.Error("Info claims to know the properties")
	}
	_, wrapped := mustWrap(t, k, 1)
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
		t.Error(err)
	}
	out, err := k.Rewrap(t.Context(), wrapped)
	if err != nil || out[0].Wrapped != wrapped[0] {
		t.Errorf("rewrap of what is current: %v, %v; want it unchanged", err, out)
	}
	_, err = k.LatestVersion(t.Context())
	wantClass(t, "LatestVersion", err, keyring.ErrDenied, "policies")
}

// The operator who rewraps may not unwrap.
func TestRewrapOperator(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(0, "mount"))
	mount := mustOpen(t, vault.Options{Key: "docs"})
	keys, wrapped := mustWrap(t, mount, 3)
	s.RotateKey("docs")
	s.Policy("operator", `path "transit/rewrap/docs" { capabilities = ["update"] } path "transit/keys/docs" { capabilities = ["read"] }`)
	t.Setenv("VAULT_TOKEN", s.Token(0, "operator"))
	operator := mustOpen(t, vault.Options{Key: "docs"})
	out, err := operator.Rewrap(t.Context(), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range out {
		if v, _ := r.Wrapped.Version(); r.Err != nil || v != 2 {
			t.Fatalf("item %d: version %d, %v", i, v, r.Err)
		}
		got, err := mount.Unwrap(t.Context(), []keyring.Wrapped{r.Wrapped})
		if err != nil || got[0].Err != nil || !got[0].Key.Equal(keys[i]) {
			t.Fatalf("item %d: %v, %v", i, err, got)
		}
	}
	wantClass(t, "operator unwraps", unwrapError(t.Context(), operator, wrapped[0]), keyring.ErrDenied, "policies")
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// An address of the wrong scheme is no refusal and no outage: waiting helps as
// little as other credentials do.
func TestWrongScheme(t *testing.T) {
	s := start(t)
	secure := vaulttest.StartWith(t, vaulttest.Options{TLS: true})
	for want, address := range map[string]string{
		"must begin with http://":  strings.Replace(s.Address, "http://", "https://", 1),
		"must begin with https://": strings.Replace(secure.Address, "https://", "http://", 1),
	} {
		wantClass(t, address, openError(t, "hvs.any", vault.Options{Key: "docs", Address: address}), keyring.ErrConfig, want)
	}
}
