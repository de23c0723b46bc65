package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// vaultPlace is a server with the key docs, and the environment of a user of it.
type vaultPlace struct {
	t   *testing.T
	s   *vaulttest.Server
	dir string
}

func newVaultPlace(t *testing.T) *vaultPlace { return newVaultPlaceWith(t, vaulttest.Options{}) }

func newVaultPlaceWith(t *testing.T, o vaulttest.Options) *vaultPlace {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "VAULT_") {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil { // Setenv brings it back
				t.Fatal(err)
			}
		}
	}
	p := &vaultPlace{t: t, s: vaulttest.StartWith(t, o), dir: t.TempDir()}
	t.Setenv("HOME", p.dir) // only now: the server is kept below the old one
	t.Setenv("VAULT_ADDR", p.s.Address)
	t.Setenv("VAULT_TOKEN", p.s.RootToken)
	t.Cleanup(func() { unmountBelow(t, p.dir) })
	return p
}

func (p *vaultPlace) path(elem ...string) string {
	return filepath.Join(append([]string{p.dir}, elem...)...)
}

// run runs a command that must exit with code, and returns what it prints.
func (p *vaultPlace) run(code int, args ...string) (stdout, stderr string) {
	p.t.Helper()
	var out, errs strings.Builder
	cmd := envfs(p.t, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		p.t.Fatalf("envfs %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), err, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// loginWith makes a token with what envfs policy prints, and nothing else, that
// of all later commands.
func (p *vaultPlace) loginWith(args ...string) {
	p.t.Helper()
	hcl, _ := p.run(0, append([]string{"policy"}, args...)...)
	p.s.Policy("printed", hcl)
	reply, err := p.s.Root.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"printed"}, NoDefaultPolicy: true})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Setenv("VAULT_TOKEN", reply.Auth.ClientToken)
}

// TestPrintedPolicies does the work of each role with a token that has the
// policy that is printed for it, and tries the work of another one.
func TestPrintedPolicies(t *testing.T) {
	if ok, err := condition("fuse"); err != nil || !ok {
		t.Skip("no FUSE")
	}
	p := newVaultPlace(t)
	vol, mnt := p.path("vol"), p.path("mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}

	p.loginWith("--role", "init", "--transit-key", "docs")
	if _, err := p.s.Client(os.Getenv("VAULT_TOKEN")).Logical().Write("transit/keys/docs", nil); err != nil {
		t.Fatal(err)
	}
	p.run(0, "init", "--keyring", "vault", "--transit-key", "docs", vol)
	p.run(exitDenied, "mount", vol, mnt)

	p.loginWith(vol)
	p.run(0, "mount", vol, mnt)
	letter := filepath.Join(mnt, "letter")
	if err := os.WriteFile(letter, []byte("Dear reader"), 0o600); err != nil {
		t.Error(err)
	}
	p.run(0, "umount", mnt)

	p.loginWith("--role", "readonly", vol)
	p.run(exitDenied, "init", "--keyring", "vault", "--transit-key", "docs", p.path("another"))
	p.run(0, "mount", "-o", "ro", vol, mnt)
	if text, err := os.ReadFile(letter); err != nil || string(text) != "Dear reader" {
		t.Errorf("read-only: %q, %v", text, err)
	}
	p.run(0, "umount", mnt)

	p.s.RotateKey("docs")
	p.run(exitDenied, "rewrap", vol)
	p.loginWith("--role", "rewrap", vol)
	p.run(exitDenied, "mount", "-o", "ro", vol, mnt)
	p.run(0, "rewrap", vol)

	p.s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	p.loginWith("--role", "readonly", "--transit-key", "docs", "--transit-mount", "/transit/", vol)
	p.run(0, "mount", "-o", "ro", vol, mnt)
	if text, err := os.ReadFile(letter); err != nil || string(text) != "Dear reader" {
		t.Errorf("after the rewrap: %q, %v", text, err)
	}
	p.run(0, "umount", mnt)
}
