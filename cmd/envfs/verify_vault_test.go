package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
	"github.com/envfs/envfs/volume"
)

// decryptCounter is a way to a Vault server that counts requests to decrypt.
func decryptCounter(t *testing.T, address string) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	var count atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(target)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/transit/decrypt/") {
			count.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server, &count
}

func verifyJSON(t *testing.T, args ...string) (int, verifyReport) {
	t.Helper()
	code, out, errs := runApp(t, append([]string{"verify", "--json"}, args...)...)
	var report verifyReport
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("code %d, %v, %s%s", code, err, out, errs)
	}
	return code, report
}

// TestVerifyWithVault verifies with a token that may only decrypt, asks in batches, and tells a key that is refused from damage.
func TestVerifyWithVault(t *testing.T) {
	s := vaulttest.Start(t)
	const files = 700
	dir := vaultVolume(t, s, files)
	if code, _, errs := runApp(t, "verify", dir); code != exitDenied {
		t.Errorf("with a token that may not decrypt: code %d, %s", code, errs)
	}
	s.Policy("read", `path "transit/decrypt/docs" { capabilities = ["update"] }`)
	t.Setenv("VAULT_TOKEN", s.Token(0, "read"))
	server, requests := decryptCounter(t, s.Address)
	for _, flag := range []string{"--quick=false", "--quick"} {
		requests.Store(0)
		code, report := verifyJSON(t, "--vault-addr", server.URL, flag, dir)
		if code != 0 || report.Files != files || len(report.Findings) > 0 || !report.Complete {
			t.Errorf("%s: code %d, %+v", flag, code, report)
		}
		if n := requests.Load(); n > files/10 {
			t.Errorf("%s: %d requests for %d files", flag, n, files)
		}
	}

	// A file from a backup of before the rotation, whose key version is disabled.
	t.Setenv("VAULT_TOKEN", s.RootToken)
	var old string
	if err := filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() && st.Name() != volume.ConfigName {
			old = path
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	s.RotateKey("docs")
	if code, _, errs := runApp(t, "rewrap", dir); code != 0 {
		t.Fatal(errs)
	}
	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	if err := os.WriteFile(old, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	code, report := verifyJSON(t, dir)
	if code != exitDenied || len(report.Findings) != 1 || report.Damage != 0 || !report.Complete {
		t.Fatalf("code %d, %+v", code, report)
	}
	if f := report.Findings[0]; f.Class != volume.ClassUnchecked || f.Kind != volume.KindKey || f.Code != exitDenied || f.Path != old {
		t.Errorf("%+v", f)
	}
}
