package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/volume"
)

// vaultExamination looks at a server, a login and a key. Each step needs the one
// before.
type vaultExamination struct {
	section
	ref    volume.VaultRef
	role   vault.Role
	volume *volume.Config // nil: none was named
	probe  *vault.Probe
}

// doctorWait bounds each request: whoever asks a doctor wants an answer.
const doctorWait = 5 * time.Second

func (v *vaultExamination) examine(ctx context.Context, o vault.Options) {
	o.Arena, o.Wait = secret.NewArena(nil), doctorWait
	if v.volume != nil {
		o.Context = v.volume.VolumeID[:]
	}
	probe, err := vault.NewProbe(o)
	if err != nil {
		v.failed("settings", err)
		return
	}
	defer probe.Close()
	v.probe = probe
	if !v.server(ctx) || !v.login(ctx) {
		return
	}
	v.token(ctx)
	if v.ref.Key == "" {
		return
	}
	v.key(ctx)
	v.capabilities(ctx)
}

// server looks at what needs no login.
func (v *vaultExamination) server(ctx context.Context) (goOn bool) {
	h, err := v.probe.Health(ctx)
	if err != nil {
		v.failed("server", err)
		return false
	}
	v.ok("server", "Vault %s at %s", h.Version, v.probe.Address())
	v.transport(h)
	switch {
	case !h.Initialized:
		v.add(finding{Name: "seal", Status: statusProblem, code: exitUnreachable, Detail: "not initialized", Hint: "an operator must set it up: vault operator init"})
		return false
	case h.Sealed:
		v.add(finding{Name: "seal", Status: statusProblem, code: exitUnreachable, Detail: "sealed: it answers no request", Hint: "an operator must unseal it: vault operator unseal"})
		return false
	case h.Standby:
		v.ok("seal", "unsealed; a standby, which forwards requests")
	default:
		v.ok("seal", "unsealed")
	}
	if h.Skew.Abs() > 10*time.Second {
		v.warn("clock", "keep both by NTP: a wrong one breaks certificates and short-lived tokens", "Vault's is %s", aheadOrBehind(h.Skew))
	} else {
		v.ok("clock", "the same as Vault's")
	}
	return true
}

func aheadOrBehind(d time.Duration) string {
	if d < 0 {
		return (-d).String() + " behind"
	}
	return d.String() + " ahead"
}

func (v *vaultExamination) transport(h vault.Health) {
	if !h.TLS {
		if isLocalAddress(v.probe.Address()) {
			v.ok("TLS", "none, which is well on this machine")
		} else {
			v.warn("TLS", "use an https:// address", "none: keys and the token cross the network in the clear")
		}
		return
	}
	left := time.Until(h.CertExpiry)
	if skip, err := strconv.ParseBool(os.Getenv("VAULT_SKIP_VERIFY")); err == nil && skip {
		v.warn("TLS", "unset VAULT_SKIP_VERIFY, and name the authority by VAULT_CACERT", "the server's certificate is not checked: anybody can pose as Vault")
	} else if left < 14*24*time.Hour {
		v.warn("TLS", "have it renewed", "the server's certificate expires in %v", duration(left))
	} else {
		v.ok("TLS", "the server's certificate is good for %v", duration(left))
	}
}

// isLocalAddress tells addresses that no network lies before.
func isLocalAddress(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	host := u.Hostname()
	return u.Scheme == "unix" || host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

// duration is a span in words that suit its length.
func duration(d time.Duration) string {
	switch {
	case d > 72*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d > time.Minute:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return d.Truncate(time.Second).String()
}

func (v *vaultExamination) login(ctx context.Context) (goOn bool) {
	if w, wrapped, err := v.probe.Wrapped(ctx); err != nil {
		v.failed("login", err)
		return false
	} else if wrapped {
		v.ok("login", "not tried, since it would use up the wrapped secret ID; its wrapping token (of %s) is good for %v", w.Path, duration(time.Until(w.Expires)))
		return false
	}
	if err := v.probe.Login(ctx); err != nil {
		v.failed("login", err)
		return false
	}
	v.ok("login", "by %s", v.probe.Method())
	return true
}

func (v *vaultExamination) token(ctx context.Context) {
	t, err := v.probe.Token(ctx)
	switch {
	case errors.Is(err, keyring.ErrDenied):
		v.warn("token", "give it the policy \"default\"", "it may not look itself up, so it is not renewed")
		return
	case err != nil:
		v.failed("token", err)
		return
	}
	life := "it does not expire"
	if t.TTL > 0 {
		life = "expires in " + duration(t.TTL)
		if t.Renewable {
			life += ", renewable"
		} else {
			life += ", not renewable"
		}
	}
	switch {
	case t.Root():
		v.warn("token", "use one with the policy that `envfs policy` prints", "a root token: it may do anything; %s", life)
	case t.Uses > 0:
		v.warn("token", "use one without a limit: num_uses=0", "good for %d more requests; %s", t.Uses, life)
	case t.TTL > 0 && !t.Renewable && v.probe.UsesTokenOf():
		v.warn("token", "use a renewable one, or another login; or have the token file replaced in time", "%s", life)
	default:
		v.ok("token", "%s; policies %s", life, strings.Join(t.Policies, ", "))
	}
}

func (v *vaultExamination) key(ctx context.Context) {
	name := "Transit key"
	k, err := v.probe.Key(ctx)
	if err == nil {
		err = v.probe.Usable(k)
	}
	if err != nil {
		v.failed(name, err)
		return
	}
	v.ok(name, "%q: %s, version %d", v.ref.Key, k.Type, k.LatestVersion)
	path := v.ref.Mount + "/keys/" + v.ref.Key
	if !k.AEAD() {
		v.warn("key type", "make volumes under a key of type aes256-gcm96, Transit's default", "%s does not authenticate what it wraps", k.Type)
	}
	if k.Exportable {
		v.warn("exportable", "it cannot be turned off: use another key for new volumes", "the key can leave Vault, by transit/export")
	}
	if k.PlaintextBackup {
		v.warn("plaintext backup", "it cannot be turned off: use another key for new volumes", "the key can leave Vault, by transit/backup")
	}
	if k.DeletionAllowed {
		v.warn("deletion", "vault write "+path+"/config deletion_allowed=false", "one request can delete the key, and all files with it")
	}
	v.versions(k)
}

// versions compares the oldest version that may unwrap with the one that the
// volume key needs.
func (v *vaultExamination) versions(k vault.KeyInfo) {
	const name = "key versions"
	used := 0
	if v.volume != nil {
		used, _ = v.volume.WrappedVolumeKey.Version() // 0 if it has none
	}
	switch {
	case used > 0 && used < k.MinDecryptionVersion:
		v.add(finding{
			Name: name, Status: statusProblem, code: exitDenied,
			Detail: fmt.Sprintf("the volume key is wrapped by version %d, but versions below %d may not unwrap", used, k.MinDecryptionVersion),
			Hint:   fmt.Sprintf("vault write %s/keys/%s/config min_decryption_version=%d, then envfs rewrap", v.ref.Mount, v.ref.Key, used),
		})
	case k.MinDecryptionVersion > 1:
		v.ok(name, "%d to %d may unwrap; envfs info DIR counts the files by version", k.MinDecryptionVersion, k.LatestVersion)
	default:
		v.ok(name, "all may unwrap")
	}
}

func (v *vaultExamination) capabilities(ctx context.Context) {
	grants, err := v.probe.Grants(ctx, v.role)
	if errors.Is(err, keyring.ErrDenied) {
		v.warn("capabilities", "give the token the policy \"default\"", "the token may not ask what it is allowed")
		return
	}
	if err != nil {
		v.failed("capabilities", err)
		return
	}
	for _, g := range grants {
		want := strings.Join(g.Capabilities, ", ")
		switch {
		case len(g.Missing()) > 0:
			v.add(finding{
				Name: g.Path, Status: statusProblem, code: exitDenied,
				Detail: fmt.Sprintf("lacks %s, to %s", strings.Join(g.Missing(), ", "), g.For),
				Hint:   fmt.Sprintf("envfs policy --role %s --transit-mount %s --transit-key %s prints what to grant", v.role, quote(v.ref.Mount), quote(v.ref.Key)),
			})
		case strings.Contains(g.Path, "/encrypt/") && slices.Contains(g.Granted, "create"):
			v.warn(g.Path, "grant update only", "%s, and create: encrypting under a misspelt name would make a key", want)
		default:
			v.ok(g.Path, "%s: %s", want, g.For)
		}
	}
}
