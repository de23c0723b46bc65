package vaulttest_test

import (
	"testing"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// canWrap reports whether the server answers a Transit request.
func canWrap(s *vaulttest.Server) error {
	_, err := s.Client(s.RootToken).Logical().Write("transit/encrypt/docs", map[string]any{"plaintext": "c2VjcmV0"})
	return err
}

func TestServerLifecycle(t *testing.T) {
	for name, o := range map[string]vaulttest.Options{"tcp": {}, "tls": {TLS: true}, "unix": {Unix: true}} {
		t.Run(name, func(t *testing.T) {
			s := vaulttest.StartWith(t, o)
			s.CreateKey("docs", nil)
			if err := canWrap(s); err != nil {
				t.Fatalf("running: %v", err)
			}
			address := s.Address
			s.Stop()
			if canWrap(s) == nil {
				t.Fatal("stopped: still answers")
			}
			s.Restart()
			if err := canWrap(s); err != nil {
				t.Fatalf("restarted: %v", err)
			}
			if s.Address != address {
				t.Fatalf("restarted at %s, was at %s", s.Address, address)
			}
			s.Seal()
			if canWrap(s) == nil {
				t.Fatal("sealed: still answers")
			}
			s.Unseal()
			if err := canWrap(s); err != nil {
				t.Fatalf("unsealed: %v", err)
			}
		})
	}
}
