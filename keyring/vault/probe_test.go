package vault_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

func mustProbe(t *testing.T, o vault.Options) *vault.Probe {
	t.Helper()
	o.Arena = secret.NewArena(nil)
	p, err := vault.NewProbe(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestProbe(t *testing.T) {
	s := start(t)
	t.Setenv("VAULT_TOKEN", s.Token(time.Hour, "mount"))
	p := mustProbe(t, vault.Options{Key: "docs"})
	h, err := p.Health(t.Context())
	if err != nil || h.Version == "" || !h.Initialized || h.Sealed || h.TLS || h.Skew != 0 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := p.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	token, err := p.Token(t.Context())
	if err != nil || token.TTL > time.Hour || token.TTL < 59*time.Minute || !token.Renewable || token.Root() || !slices.Contains(token.Policies, "mount") {
		t.Errorf("%+v, %v", token, err)
	}
	if key, err := p.Key(t.Context()); err != nil || !key.AEAD() || p.Usable(key) != nil {
		t.Errorf("%+v, %v", key, err)
	}
	for role, lacks := range map[vault.Role]string{
		vault.RoleMount: "", vault.RoleReadOnly: "", vault.RoleRewrap: "transit/rewrap/docs update", vault.RoleInit: "transit/keys/docs update",
	} {
		grants, err := p.Grants(t.Context(), role)
		if err != nil {
			t.Fatal(err)
		}
		var missing []string
		for _, g := range grants {
			for _, c := range g.Missing() {
				missing = append(missing, g.Path+" "+c)
			}
		}
		if got := strings.Join(missing, ", "); got != lacks {
			t.Errorf("%s lacks %q, want %q", role, got, lacks)
		}
	}

	s.Seal()
	if h, err := p.Health(t.Context()); err != nil || !h.Sealed || !h.Initialized {
		t.Errorf("sealed: %+v, %v", h, err)
	}
	s.Stop()
	if _, err := p.Health(t.Context()); !errors.Is(err, keyring.ErrUnreachable) {
		t.Errorf("stopped: %v", err)
	}
}

func TestProbeTLS(t *testing.T) {
	clearEnv(t)
	s := vaulttest.StartWith(t, vaulttest.Options{TLS: true})
	t.Setenv("VAULT_ADDR", s.Address)
	_, err := mustProbe(t, vault.Options{}).Health(t.Context())
	wantClass(t, "unknown authority", err, keyring.ErrConfig, "VAULT_CACERT")
	t.Setenv("VAULT_CACERT", s.CACert)
	h, err := mustProbe(t, vault.Options{}).Health(t.Context())
	if left := time.Until(h.CertExpiry); err != nil || !h.TLS || left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("%+v, %v", h, err)
	}
}

// A probe leaves no token behind, unless it is someone else's.
func TestProbeRevokes(t *testing.T) {
	r := userpassRig(t)
	own := r.s.Token(time.Hour, "mount")
	tokens := func() int {
		list, err := r.s.Root.Logical().List("auth/token/accessors")
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Data["keys"].([]any))
	}
	before := tokens()
	for _, o := range []vault.Options{r.o, {TokenFile: writeFile(t, "token", own)}} {
		p := mustProbe(t, o)
		if err := p.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if after := tokens(); after != before {
			t.Errorf("%s: %d tokens, before %d", p.Method(), after, before)
		}
	}
}

// Looking at a wrapping token leaves it as it is.
func TestProbeWrapped(t *testing.T) {
	r := wrappedRig(t)
	p := mustProbe(t, r.o)
	for range 2 {
		w, wrapped, err := p.Wrapped(t.Context())
		left := time.Until(w.Expires)
		if err != nil || !wrapped || w.Path != "auth/approle/role/envfs/secret-id" || left > 5*time.Minute || left < 4*time.Minute {
			t.Errorf("%+v, %v, %v", w, wrapped, err)
		}
	}
	if err := p.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err := p.Wrapped(t.Context())
	wantClass(t, "used up", err, keyring.ErrDenied, "someone else")
	if _, wrapped, err := mustProbe(t, vault.Options{}).Wrapped(t.Context()); wrapped || err != nil {
		t.Errorf("none: %v, %v", wrapped, err)
	}
}
