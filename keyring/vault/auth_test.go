package vault_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// loginRig is one way to log in, set up for the policy "mount".
type loginRig struct {
	s       *vaulttest.Server
	o       vault.Options
	path    string                                     // whose tokens can be revoked together
	limit   func(t *testing.T, ttl, end time.Duration) // of tokens that are given out from now on
	spoil   func(t *testing.T)                         // makes the credentials worthless
	restore func(t *testing.T)                         // puts good ones in their place
	secret  func() string                              // what must not be in a log
	hint    string                                     // when spoilt
}

func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func limits(ttl, end time.Duration) map[string]any {
	return map[string]any{"token_policies": "mount", "token_ttl": ttl.String(), "token_max_ttl": end.String()}
}

func with(m map[string]any, more map[string]any) map[string]any {
	for name, value := range more {
		m[name] = value
	}
	return m
}

func userpassRig(t *testing.T) loginRig {
	s := start(t)
	const password = " pass word "
	file := writeFile(t, "password", password+"\n")
	limit := func(t *testing.T, ttl, end time.Duration) {
		s.Write("auth/userpass/users/ann", with(limits(ttl, end), map[string]any{"password": password}))
	}
	limit(t, time.Hour, time.Hour)
	return loginRig{
		s: s, path: "auth/userpass/login", limit: limit, hint: "credentials",
		o:       vault.Options{Method: vault.MethodUserpass, Username: "ann", PasswordFile: file},
		spoil:   func(t *testing.T) { replaceFile(t, file, "wrong") },
		restore: func(t *testing.T) { replaceFile(t, file, password+"\r\n") },
		secret:  func() string { return password },
	}
}

func wrappedRig(t *testing.T) loginRig {
	s := start(t)
	limit := func(t *testing.T, ttl, end time.Duration) { s.Write("auth/approle/role/envfs", limits(ttl, end)) }
	limit(t, time.Hour, time.Hour)
	role, err := s.Root.Logical().Read("auth/approle/role/envfs/role-id")
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, "wrapped", wrappedSecretID(t, s)+"\n")
	return loginRig{
		s: s, path: "auth/approle/login", limit: limit, hint: "credentials",
		o: vault.Options{Method: vault.MethodAppRole, RoleID: role.Data["role_id"].(string), WrappedSecretIDFile: file},
		spoil: func(t *testing.T) {
			ids, err := s.Root.Logical().List("auth/approle/role/envfs/secret-id")
			if err != nil {
				t.Fatal(err)
			}
			for _, accessor := range ids.Data["keys"].([]any) {
				s.Write("auth/approle/role/envfs/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": accessor})
			}
		},
		restore: func(t *testing.T) { replaceFile(t, file, wrappedSecretID(t, s)) },
		secret:  func() string { b, _ := os.ReadFile(file); return strings.TrimSpace(string(b)) },
	}
}

// wrappedSecretID makes a secret ID and returns the token that it is wrapped in.
func wrappedSecretID(t *testing.T, s *vaulttest.Server) string {
	t.Helper()
	client := s.Client(s.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	reply, err := client.Logical().Write("auth/approle/role/envfs/secret-id", nil)
	if err != nil || reply.WrapInfo == nil {
		t.Fatalf("%+v, %v", reply, err)
	}
	return reply.WrapInfo.Token
}

func kubernetesRig(t *testing.T) loginRig {
	s := start(t)
	cluster := s.Cluster()
	limit := func(t *testing.T, ttl, end time.Duration) {
		s.Write("auth/kubernetes/role/backup", with(limits(ttl, end), map[string]any{
			"bound_service_account_names": "envfs", "bound_service_account_namespaces": "storage",
		}))
	}
	limit(t, time.Hour, time.Hour)
	good := func() string { return cluster.Token("storage", "envfs", time.Hour) }
	file := writeFile(t, "token", good())
	return loginRig{
		s: s, path: "auth/kubernetes/login", limit: limit, hint: "credentials",
		o:       vault.Options{Method: vault.MethodKubernetes, Role: "backup", ServiceAccountFile: file},
		spoil:   func(t *testing.T) { replaceFile(t, file, cluster.Token("storage", "envfs", -time.Minute)) },
		restore: func(t *testing.T) { replaceFile(t, file, good()) },
		secret:  func() string { b, _ := os.ReadFile(file); return string(b) },
	}
}

func certRig(t *testing.T) loginRig {
	clearEnv(t)
	s := vaulttest.StartWith(t, vaulttest.Options{TLS: true})
	s.CreateKey("docs", nil)
	s.Policy("mount", mountPolicy)
	dir := t.TempDir()
	cert, key := vaulttest.ClientCertificate(t, "backup")
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	show := func(t *testing.T, cert, key string) {
		replaceFile(t, certFile, cert)
		replaceFile(t, keyFile, key)
	}
	show(t, cert, key)
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_CACERT", s.CACert)
	t.Setenv("VAULT_CLIENT_CERT", certFile)
	t.Setenv("VAULT_CLIENT_KEY", keyFile)
	limit := func(t *testing.T, ttl, end time.Duration) {
		s.Write("auth/cert/certs/backup", with(limits(ttl, end), map[string]any{"certificate": cert}))
	}
	limit(t, time.Hour, time.Hour)
	return loginRig{
		s: s, path: "auth/cert/login", limit: limit, hint: "credentials",
		o: vault.Options{Method: vault.MethodCert, Role: "backup"},
		spoil: func(t *testing.T) {
			cert, key := vaulttest.ClientCertificate(t, "stranger")
			show(t, cert, key)
		},
		restore: func(t *testing.T) { show(t, cert, key) },
		secret:  func() string { return key },
	}
}

func loginRigs() map[string]func(*testing.T) loginRig {
	return map[string]func(*testing.T) loginRig{
		"userpass": userpassRig, "wrapped secret ID": wrappedRig, "kubernetes": kubernetesRig, "cert": certRig,
	}
}

// open opens with a log.
func (r loginRig) open(t *testing.T, level slog.Level) (*vault.Keyring, *logBuffer) {
	t.Helper()
	log := new(logBuffer)
	o := r.o
	o.Key, o.Log = "docs", slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	k := mustOpen(t, o)
	t.Cleanup(func() {
		if strings.Contains(log.b.String(), r.secret()) || strings.Contains(log.b.String(), "hvs.") {
			t.Error("the log holds a credential")
		}
	})
	return k, log
}

func (r loginRig) revokeAll(t *testing.T) {
	t.Helper()
	if err := r.s.Root.Sys().RevokePrefix(r.path); err != nil {
		t.Fatal(err)
	}
}

// Each method logs in, logs in again once when its tokens are revoked, says once
// when its credentials have become worthless, and takes up new ones.
func TestLoginMethods(t *testing.T) {
	for name, makeRig := range loginRigs() {
		t.Run(name, func(t *testing.T) {
			r := makeRig(t)
			k, log := r.open(t, slog.LevelInfo)
			_, wrapped := mustWrap(t, k, 1)

			r.revokeAll(t)
			var wg sync.WaitGroup
			for range 4 {
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
			if s := k.State(); !s.LoggedIn || time.Until(s.Expiry) < 50*time.Minute || !s.Renewable {
				t.Errorf("state after two logins: %+v", s)
			}

			r.spoil(t)
			r.revokeAll(t)
			for range 3 {
				wantClass(t, "worthless credentials", unwrapError(t.Context(), k, wrapped[0]), keyring.ErrDenied, r.hint)
			}
			if n := log.count("vault login failed"); n != 1 {
				t.Errorf("the failure was logged %d times; want once", n)
			}
			if s := k.State(); s.LoggedIn || s.LastError != keyring.ErrDenied || time.Since(s.LastErrorTime) > time.Minute {
				t.Errorf("state after failed logins: %+v", s)
			}

			r.restore(t)
			if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
				t.Errorf("good credentials again: %v", err)
			}
			if n := log.count("logged in"); n != 3 {
				t.Errorf("%d logins in all; want 3", n)
			}
		})
	}
}

// Tokens of each method are renewed, and replaced at their end.
func TestLoginMethodsRenew(t *testing.T) {
	for name, makeRig := range loginRigs() {
		t.Run(name, func(t *testing.T) {
			r := makeRig(t)
			r.limit(t, time.Second, 3*time.Second)
			k, log := r.open(t, slog.LevelDebug)
			_, wrapped := mustWrap(t, k, 1)
			eventually(t, "another login and a renewal", func() bool {
				if err := unwrapError(t.Context(), k, wrapped[0]); err != nil {
					t.Fatal(err)
				}
				return log.count("logged in") >= 2 && log.count("token renewed") >= 1
			})
			if n := log.count("level=WARN"); n != 0 {
				t.Errorf("%d warnings:\n%s", n, log.b.String())
			}
		})
	}
}

// A method may be enabled at another path than its name.
func TestAuthMount(t *testing.T) {
	r := userpassRig(t)
	if err := r.s.Root.Sys().EnableAuthWithOptions("people/eu", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	r.s.Write("auth/people/eu/users/bea", map[string]any{"password": "p", "token_policies": "mount"})
	o := vault.Options{Key: "docs", Method: vault.MethodUserpass, Username: "bea", PasswordFile: writeFile(t, "p", "p"), AuthMount: "/people/eu/"}
	mustWrap(t, mustOpen(t, o), 1)
	o.AuthMount = ""
	wantClass(t, "at the usual path", openError(t, "", o), keyring.ErrDenied, "credentials")
}

func TestLoginMethodsRefuse(t *testing.T) {
	start(t)
	t.Setenv("VAULT_CLIENT_CERT", "")
	empty := writeFile(t, "empty", "\n")
	for name, c := range map[string]struct {
		o     vault.Options
		class error
		hint  string
	}{
		"unknown method":            {vault.Options{Method: "magic"}, keyring.ErrConfig, ""},
		"kubernetes without a role": {vault.Options{Method: vault.MethodKubernetes}, keyring.ErrConfig, ""},
		"kubernetes outside a pod":  {vault.Options{Method: vault.MethodKubernetes, Role: "r"}, keyring.ErrDenied, "file"},
		"kubernetes, empty token":   {vault.Options{Method: vault.MethodKubernetes, Role: "r", ServiceAccountFile: empty}, keyring.ErrDenied, "file"},
		"userpass without a name":   {vault.Options{Method: vault.MethodUserpass, PasswordFile: empty}, keyring.ErrConfig, ""},
		"userpass without password": {vault.Options{Method: vault.MethodUserpass, Username: "ann"}, keyring.ErrConfig, ""},
		"userpass, empty password":  {vault.Options{Method: vault.MethodUserpass, Username: "ann", PasswordFile: empty}, keyring.ErrDenied, "file"},
		"cert without certificate":  {vault.Options{Method: vault.MethodCert}, keyring.ErrConfig, "VAULT_CLIENT_CERT"},
		"approle without role ID":   {vault.Options{Method: vault.MethodAppRole, SecretIDFile: empty}, keyring.ErrConfig, ""},
		"two kinds of secret ID":    {vault.Options{RoleID: "r", SecretIDFile: empty, WrappedSecretIDFile: empty}, keyring.ErrConfig, ""},
		"approle, empty secret ID":  {vault.Options{RoleID: "r", SecretIDFile: empty}, keyring.ErrDenied, "file"},
		"approle, empty wrapping":   {vault.Options{RoleID: "r", WrappedSecretIDFile: empty}, keyring.ErrDenied, "file"},
		"no wrapping token":         {vault.Options{RoleID: "r", WrappedSecretIDFile: writeFile(t, "w", "hvs.garbage")}, keyring.ErrDenied, "wrapping token"},
		"no agent":                  {vault.Options{Method: vault.MethodAgent}, keyring.ErrDenied, "use_auto_auth_token"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Key = "docs"
			wantClass(t, "Open", openError(t, "", c.o), c.class, c.hint)
		})
	}
}

// A wrapping token serves one process: whoever comes second is told that someone
// was there before.
func TestWrappedSecretIDServesOnce(t *testing.T) {
	r := wrappedRig(t)
	r.open(t, slog.LevelInfo)
	o := r.o
	o.Key = "docs"
	wantClass(t, "the second process", openError(t, "", o), keyring.ErrDenied, "someone else has read the secret ID")

	// The wrapping of something else is no secret ID.
	client := r.s.Client(r.s.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	other, err := client.Logical().Read("transit/keys/docs")
	if err != nil {
		t.Fatal(err)
	}
	o.WrappedSecretIDFile = writeFile(t, "other", other.WrapInfo.Token)
	wantClass(t, "another wrapping", openError(t, "", o), keyring.ErrDenied, "vault write -wrap-ttl")
}

// The secret ID stays for the logins to come, though its file is gone; not
// beyond the end of the keyring.
func TestWrappedSecretIDIsKept(t *testing.T) {
	r := wrappedRig(t)
	r.secret = func() string { return "hvs." }
	k, log := r.open(t, slog.LevelInfo)
	_, wrapped := mustWrap(t, k, 1)
	if err := os.Remove(r.o.WrappedSecretIDFile); err != nil {
		t.Fatal(err)
	}
	r.revokeAll(t)
	if err := unwrapError(t.Context(), k, wrapped[0]); err != nil || log.count("logged in") != 2 {
		t.Errorf("after the file was removed: %v, %d logins", err, log.count("logged in"))
	}
	k.Close()
	if err := unwrapError(t.Context(), k, wrapped[0]); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("after Close: %v", err)
	}
}
