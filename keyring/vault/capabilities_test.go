package vault_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// onlyPolicy makes a token that has this policy and no other, "default" neither.
func onlyPolicy(t *testing.T, s *vaulttest.Server, hcl string) string {
	t.Helper()
	s.Policy("only", hcl)
	reply, err := s.Root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"only"}, NoDefaultPolicy: true})
	if err != nil {
		t.Fatal(err)
	}
	return reply.Auth.ClientToken
}

func policyOf(t *testing.T, r vault.Role) string {
	t.Helper()
	hcl, err := r.Policy("transit", "docs")
	if err != nil {
		t.Fatal(err)
	}
	return hcl
}

// try makes a request of each kind, and returns those that were not refused.
func try(t *testing.T, client *api.Client, ciphertext, foreign string) (allowed []string) {
	t.Helper()
	plain := map[string]any{"plaintext": "c2VjcmV0"}
	for _, c := range []struct {
		name, path string
		body       map[string]any // nil: read
	}{
		{"encrypt", "transit/encrypt/docs", plain},
		{"decrypt", "transit/decrypt/docs", map[string]any{"ciphertext": ciphertext}},
		{"rewrap", "transit/rewrap/docs", map[string]any{"ciphertext": ciphertext}},
		{"read", "transit/keys/docs", nil},
		{"create", "transit/keys/docs", map[string]any{"type": "aes256-gcm96"}},
		{"encrypt, other key", "transit/encrypt/other", plain},
		{"encrypt, no such key", "transit/encrypt/misspelt", plain},
		{"decrypt, other key", "transit/decrypt/other", map[string]any{"ciphertext": foreign}},
		{"rewrap, other key", "transit/rewrap/other", map[string]any{"ciphertext": foreign}},
		{"read, other key", "transit/keys/other", nil},
		{"create, other key", "transit/keys/another", map[string]any{}},
		{"list", "transit/keys?list=true", nil},
		{"rotate", "transit/keys/docs/rotate", map[string]any{}},
		{"configure", "transit/keys/docs/config", map[string]any{"deletion_allowed": true}},
		{"export", "transit/export/encryption-key/docs", nil},
		{"back up", "transit/backup/docs", nil},
		{"trim", "transit/keys/docs/trim", map[string]any{"min_available_version": 1}},
		{"data key", "transit/datakey/plaintext/docs", map[string]any{}},
		{"hmac", "transit/hmac/docs", map[string]any{"input": "c2VjcmV0"}},
		{"mounts", "sys/mounts", nil},
		{"own policy", "sys/policies/acl/only", map[string]any{"policy": ""}},
		{"new token", "auth/token/create", map[string]any{}},
	} {
		var err error
		if path, query, _ := strings.Cut(c.path, "?"); c.body != nil {
			_, err = client.Logical().Write(c.path, c.body)
		} else if query != "" {
			_, err = client.Logical().List(path)
		} else {
			_, err = client.Logical().Read(path)
		}
		var refused *api.ResponseError
		if errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden {
			continue
		}
		allowed = append(allowed, c.name)
	}
	return allowed
}

// With the policy of a role, exactly what the role needs is allowed.
func TestPoliciesAllowNoMore(t *testing.T) {
	s := start(t)
	s.CreateKey("other", nil)
	s.ConfigureKey("docs", map[string]any{"exportable": true, "allow_plaintext_backup": true})
	seal := func(key string) string {
		return s.Write("transit/encrypt/"+key, map[string]any{"plaintext": "c2VjcmV0"})["ciphertext"].(string)
	}
	ciphertext, foreign := seal("docs"), seal("other")
	for role, want := range map[vault.Role][]string{
		vault.RoleMount:    {"encrypt", "decrypt", "read"},
		vault.RoleReadOnly: {"decrypt", "read"},
		vault.RoleRewrap:   {"rewrap", "read"},
		vault.RoleInit:     {"encrypt", "read", "create"},
	} {
		hcl := policyOf(t, role)
		if strings.Contains(hcl, `"create"`) {
			t.Errorf("%s may create keys by encrypting:\n%s", role, hcl)
		}
		client := s.Client(onlyPolicy(t, s, hcl))
		if got := try(t, client, ciphertext, foreign); !slices.Equal(got, want) {
			t.Errorf("%s may %q, want %q", role, got, want)
		}
	}
	if got := try(t, s.Client(s.RootToken), ciphertext, foreign); len(got) != 22 {
		t.Errorf("the trial itself is refused: root may only %d: %q", len(got), got)
	}
}

// With the policy of a role, a keyring does what the role needs.
func TestPoliciesAllowEnough(t *testing.T) {
	s := start(t)
	open := func(role vault.Role) *vault.Keyring {
		t.Setenv("VAULT_TOKEN", onlyPolicy(t, s, policyOf(t, role)))
		return mustOpen(t, vault.Options{Key: "docs", Arena: secret.NewArena(nil)})
	}
	mount := open(vault.RoleMount)
	keys, wrapped := mustWrap(t, mount, 3)
	check := func(k *vault.Keyring, wrapped []keyring.Wrapped) {
		t.Helper()
		out, err := k.Unwrap(t.Context(), wrapped)
		if err != nil {
			t.Fatal(err)
		}
		for i, u := range out {
			if u.Err != nil || !u.Key.Equal(keys[i]) {
				t.Errorf("key %d: %v", i, u.Err)
			}
		}
	}
	check(mount, wrapped)
	readonly := open(vault.RoleReadOnly)
	check(readonly, wrapped)
	if _, err := readonly.Wrap(t.Context(), keys); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("readonly wraps: %v", err)
	}

	s.RotateKey("docs")
	rewrap := open(vault.RoleRewrap)
	moved, err := rewrap.Rewrap(t.Context(), wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range moved {
		if v, err := m.Wrapped.Version(); m.Err != nil || err != nil || v != 2 {
			t.Errorf("key %d is of version %d: %v, %v", i, v, m.Err, err)
		}
		wrapped[i] = m.Wrapped
	}
	if err := unwrapError(t.Context(), rewrap, wrapped[0]); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("rewrap unwraps: %v", err)
	}
	readonly = open(vault.RoleReadOnly)
	check(readonly, wrapped)

	// init makes the key, too.
	hcl, err := vault.RoleInit.Policy("/transit/", "fresh")
	if err != nil {
		t.Fatal(err)
	}
	token := onlyPolicy(t, s, hcl)
	if _, err := s.Client(token).Logical().Write("transit/keys/fresh", nil); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_TOKEN", token)
	mustWrap(t, mustOpen(t, vault.Options{Key: "fresh"}), 1)
}

func TestPolicyRefusesPaths(t *testing.T) {
	for _, path := range [][2]string{{"transit", "*"}, {"transit", "a/b"}, {"+", "docs"}, {"transit/..", "docs"}, {"", "docs"}, {"transit", ""}, {"transit", "a\"b"}} {
		if hcl, err := vault.RoleMount.Policy(path[0], path[1]); !errors.Is(err, keyring.ErrConfig) {
			t.Errorf("%q: %q, %v", path, hcl, err)
		}
	}
	if hcl, err := vault.RoleMount.Policy("kms/eu", "docs"); err != nil || !strings.Contains(hcl, `path "kms/eu/decrypt/docs" {`) {
		t.Errorf("%q, %v", hcl, err)
	}
}
