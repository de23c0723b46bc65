package vaulttest

import (
	"time"

	"github.com/hashicorp/vault/api"
)

// Write writes data at a path as root and returns the reply's data.
func (s *Server) Write(path string, data map[string]any) map[string]any {
	s.tb.Helper()
	secret, err := s.Root.Logical().Write(path, data)
	if err != nil {
		s.tb.Fatalf("vault: write %s: %v", path, err)
	}
	if secret == nil {
		return nil
	}
	return secret.Data
}

// CreateKey makes a Transit key at transit/, with parameters such as type or
// derived. Without parameters it is aes256-gcm96.
func (s *Server) CreateKey(name string, params map[string]any) {
	s.tb.Helper()
	s.Write("transit/keys/"+name, params)
}

// ConfigureKey changes a key, such as its min_decryption_version.
func (s *Server) ConfigureKey(name string, params map[string]any) {
	s.tb.Helper()
	s.Write("transit/keys/"+name+"/config", params)
}

// RotateKey gives a key a new version.
func (s *Server) RotateKey(name string) {
	s.tb.Helper()
	s.Write("transit/keys/"+name+"/rotate", nil)
}

// DeleteKey deletes a key for good.
func (s *Server) DeleteKey(name string) {
	s.tb.Helper()
	s.ConfigureKey(name, map[string]any{"deletion_allowed": true})
	if _, err := s.Root.Logical().Delete("transit/keys/" + name); err != nil {
		s.tb.Fatalf("vault: delete key: %v", err)
	}
}

// Policy writes a policy in HCL.
func (s *Server) Policy(name, hcl string) {
	s.tb.Helper()
	if err := s.Root.Sys().PutPolicy(name, hcl); err != nil {
		s.tb.Fatalf("vault: policy: %v", err)
	}
}

// Token makes a token with the policies. A ttl of 0 takes the server's default
// of an hour.
func (s *Server) Token(ttl time.Duration, policies ...string) string {
	s.tb.Helper()
	req := &api.TokenCreateRequest{Policies: policies}
	if ttl > 0 {
		req.TTL = ttl.String()
	}
	secret, err := s.Root.Auth().Token().Create(req)
	if err != nil {
		s.tb.Fatalf("vault: token: %v", err)
	}
	return secret.Auth.ClientToken
}

// Revoke revokes a token.
func (s *Server) Revoke(token string) {
	s.tb.Helper()
	if err := s.Root.Auth().Token().RevokeTree(token); err != nil {
		s.tb.Fatalf("vault: revoke: %v", err)
	}
}

// AppRole makes a role with the policies and returns its role ID and one of its
// secret IDs. A ttl of 0 takes the server's default.
func (s *Server) AppRole(name string, ttl time.Duration, policies ...string) (roleID, secretID string) {
	s.tb.Helper()
	params := map[string]any{"token_policies": policies}
	if ttl > 0 {
		params["token_ttl"] = ttl.String()
		params["token_max_ttl"] = (10 * ttl).String()
	}
	s.Write("auth/approle/role/"+name, params)
	secret, err := s.Root.Logical().Read("auth/approle/role/" + name + "/role-id")
	if err != nil {
		s.tb.Fatalf("vault: approle: %v", err)
	}
	roleID, _ = secret.Data["role_id"].(string)
	secretID, _ = s.Write("auth/approle/role/"+name+"/secret-id", nil)["secret_id"].(string)
	return roleID, secretID
}

// Seal seals the server: it runs, and refuses everything.
func (s *Server) Seal() {
	s.tb.Helper()
	if err := s.Root.Sys().Seal(); err != nil {
		s.tb.Fatalf("vault: seal: %v", err)
	}
}

// Unseal ends Seal.
func (s *Server) Unseal() {
	s.tb.Helper()
	status, err := s.Root.Sys().Unseal(s.UnsealKey)
	if err != nil || status.Sealed {
		s.tb.Fatalf("vault: unseal: %v", err)
	}
}
