package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// login is a volume that is mounted with one login to Vault, by the commands of doc/operations.md.
type login struct {
	*rig
	way     way
	server  *vaulttest.Server
	cluster *vaulttest.Cluster // of the Kubernetes login
	agent   *vaulttest.Agent
	token   string   // the agent's
	setUp   []string // commands of an operator of Vault, which make new credentials each time
	command string   // the last one, which mounts
	secrets []string // what must not be seen
}

// way is a way to log in.
type way struct {
	heading string // in doc/operations.md
	entry   string // path in Vault of what sets the lives of its tokens; "": envfs gets none
	give    func(l *login)
	wrong   []wrongLogin // the first one can happen to a mount as well
}

// wrongLogin is something that makes the credentials worthless, and what a command says then.
type wrongLogin struct {
	name          string
	spoil         func(l *login)
	message, hint string
}

func ways() []way {
	refused := func(name, message string, spoil func(l *login)) wrongLogin {
		message = `^envfs: .*log in to vault: access denied by the key service: HTTP 40[03]: .*` + message
		return wrongLogin{name, spoil, message, `^hint: vault refuses these credentials$`}
	}
	const elsewhere = "^hint: vault refuses these credentials, or has no such login method there: `vault auth list` shows which are$"
	return []way{
		{"Token", "", nothingToGive, []wrongLogin{
			{"revoked", func(l *login) { l.server.Revoke(l.read(l.below("etc/docs.token"))) },
				`^envfs: .*access denied by the key service: the token of token file .*docs.token has expired or was revoked$`, "^hint: get a new one: `vault login`$"},
			{"empty", func(l *login) { l.put("docs.token", "\n") },
				`^envfs: .*no token in token file .*docs.token$`, "^hint: log in: `vault login`, or set VAULT_TOKEN$"},
		}},
		{"Agent or proxy", "", giveAgent, []wrongLogin{
			{"no token", func(l *login) { l.server.Revoke(l.token) }, `^envfs: .*access denied by the key service: .*permission denied`,
				`^hint: the agent or proxy at the address must have auto_auth and use_auto_auth_token, and its token the policy default$`},
		}},
		{"AppRole", "auth/approle/role/envfs", nothingToGive, []wrongLogin{
			refused("another secret ID", "invalid role or secret ID", func(l *login) { l.put("docs.secret-id", "11111111-2222-3333-4444-555555555555") }),
		}},
		{"AppRole with a wrapped secret ID", "auth/approle/role/envfs", nothingToGive, []wrongLogin{
			refused("secret ID revoked", "invalid role or secret ID", revokeSecretIDs),
			{"used by a mount", func(l *login) { l.mount(); l.umount() }, spentMessage, spentHint},
			{"used by somebody else", useWrappingToken, spentMessage, spentHint},
			{"no wrapping token", func(l *login) { l.put("docs.wrapped", "hvs.garbage") }, spentMessage, spentHint},
		}},
		{"Kubernetes", "auth/kubernetes/role/envfs", giveServiceAccount, []wrongLogin{
			refused("expired", "token is expired", func(l *login) { l.put("docs.jwt", l.cluster.Token("storage", "envfs", -time.Minute)) }),
			refused("another account", "service account name not authorized", func(l *login) { l.put("docs.jwt", l.cluster.Token("storage", "other", time.Hour)) }),
			{"no token at all", func(l *login) { l.put("docs.jwt", "not.a.token") }, `^envfs: .*log in to vault: .*HTTP 403: permission denied$`, elsewhere},
			{"no file", func(l *login) { l.remove("docs.jwt") }, `^envfs: .*docs.jwt: no such file or directory$`, `^hint: check the file and its permissions$`},
		}},
		{"User name and password", "auth/userpass/users/envfs", givePassword, []wrongLogin{
			refused("another password", "invalid username or password", func(l *login) { l.put("docs.password", "another password\n") }),
		}},
		{"TLS certificate", "auth/cert/certs/envfs", func(l *login) { l.giveCertificate("backup") }, []wrongLogin{
			refused("another certificate", "login certificate", func(l *login) { l.giveCertificate("stranger") }),
		}},
	}
}

const (
	spentMessage = `^envfs: .*docs.wrapped: the wrapping token was used already, or has expired$`
	spentHint    = `^hint: put a new wrapping token there; if nobody of yours has used the old one, someone else has read the secret ID: revoke it$`
)

func nothingToGive(*login) {} // Vault makes the credentials

func giveServiceAccount(l *login) {
	l.put("docs.jwt", l.cluster.Token("storage", "envfs", time.Hour)+"\n")
}

func givePassword(l *login) { l.put("docs.password", "open sesame\n") }

func giveAgent(l *login) {
	l.token = l.server.Token(0, "docs")
	l.agent.SetToken(l.token)
}

func (l *login) giveCertificate(name string) {
	cert, key := vaulttest.ClientCertificate(l.t, name)
	l.put("docs.pem", cert)
	l.put("docs.key", key)
}

// useWrappingToken has somebody else exchange the wrapping token.
func useWrappingToken(l *login) {
	token := l.read(l.below("etc/docs.wrapped"))
	if _, err := l.server.Client(token).Logical().Unwrap(""); err != nil {
		l.t.Fatal(err)
	}
}

func revokeSecretIDs(l *login) {
	ids, err := l.server.Root.Logical().List("auth/approle/role/envfs/secret-id")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, accessor := range ids.Data["keys"].([]any) {
		l.server.Write("auth/approle/role/envfs/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": accessor})
	}
}

// newLogin makes a volume with a login, by which it was initialised, and new credentials for a mount.
func newLogin(t *testing.T, w way) *login {
	t.Helper()
	l := &login{rig: newPlace(t), way: w}
	l.mkdir(l.below("etc"))
	l.server = vaulttest.StartWith(t, vaulttest.Options{TLS: w.heading == "TLS certificate"})
	l.server.CreateKey("docs", nil)
	l.cluster, l.agent = l.server.Cluster(), l.server.Agent("")
	l.env = []string{"HOME=" + l.below("home"), "VAULT_ADDR=" + l.server.Address, "VAULT_CACERT=" + l.server.CACert}

	lines := slices.Concat(commandsIn(t, "../doc/operations.md", "### Logging in")[:1], commandsIn(t, "../doc/operations.md", "#### "+w.heading))
	places := strings.NewReplacer("/etc/envfs", l.below("etc"), "/var/run/secrets/vault/token", l.below("etc/docs.jwt"),
		"unix:///run/vault/agent.sock", l.agent.Address,
		"/srv/docs", l.dir, "/mnt/docs", l.mnt)
	for i := range lines {
		lines[i] = places.Replace(lines[i])
	}
	last := len(lines) - 1
	l.setUp, l.command = lines[:last], lines[last]
	l.renew()
	l.init(l.dir).ok()
	l.renew()
	return l
}

// renew makes new credentials of the same identity, as an operator of Vault does.
func (l *login) renew() {
	l.t.Helper()
	l.way.give(l)
	for _, line := range l.setUp {
		l.shell(line, "VAULT_TOKEN="+l.server.RootToken).ok()
	}
	l.keepSecret()
}

// shell runs a command line.
func (l *login) shell(line string, env ...string) result {
	l.t.Helper()
	script := `vault() { ` + taskEnv + `=vault "$TESTS" "$@"; }` + "\n" + line
	tests, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	res := run(l.t, slices.Concat(l.env, []string{"TESTS=" + tests}, env), l.base, "bash", "-euo", "pipefail", "-c", script)
	res.line = line
	l.wantNoSecret(line, res.stdout+res.stderr)
	return res
}

// init makes a volume, by the flags of the mount.
func (l *login) init(dir string) result {
	l.t.Helper()
	return l.shell(strings.NewReplacer("envfs mount", "envfs init --keyring vault --transit-key docs", l.dir, dir, " "+l.mnt, "").Replace(l.command))
}

// try mounts the volume.
func (l *login) try() result {
	l.t.Helper()
	return l.shell(strings.Replace(l.command, "envfs mount", "envfs mount --log-file "+l.log, 1))
}

func (l *login) mount() {
	l.t.Helper()
	l.served(l.try().ok().stdout)
}

// refused mounts the volume and makes another one, in vain.
func (l *login) refused(wrong wrongLogin) {
	l.t.Helper()
	spoilt := func() {
		l.renew()
		wrong.spoil(l) // again for each command: some credentials serve one only
	}
	spoilt()
	unchanged(l.t, l.dir, func() { l.try().fails(3, wrong.message, wrong.hint) })
	if left := mountpoints(l.t, l.base); left != nil {
		l.t.Errorf("%s: mounted: %v", wrong.name, left)
	}
	spoilt()
	unchanged(l.t, l.base, func() { l.init(l.below("new")).fails(3, wrong.message, wrong.hint) })
}

// put puts a credential where the commands look for it, as a whole: a mount may read it at any time.
func (l *login) put(name, content string) {
	l.t.Helper()
	path := l.below("etc", name)
	l.write(path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		l.t.Fatal(err)
	}
	l.keepSecret()
}

func (l *login) remove(name string) {
	l.t.Helper()
	if err := os.Remove(l.below("etc", name)); err != nil {
		l.t.Fatal(err)
	}
}

// keepSecret notes what is in the files with credentials.
func (l *login) keepSecret() {
	l.t.Helper()
	entries, err := os.ReadDir(l.below("etc"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, entry := range entries {
		if ext := filepath.Ext(entry.Name()); ext == ".pem" || ext == ".role-id" {
			continue // anybody may see it
		}
		for line := range strings.Lines(l.read(l.below("etc", entry.Name()))) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") && !slices.Contains(l.secrets, line) {
				l.secrets = append(l.secrets, line)
			}
		}
	}
}

// wantNoSecret looks for credentials, and for any token of Vault, in what can be read by others.
func (l *login) wantNoSecret(where, text string) {
	l.t.Helper()
	for _, secret := range append(l.secrets, "hvs.") {
		if strings.Contains(text, secret) {
			l.t.Errorf("%s: a credential is shown:\n%s", where, text)
		}
	}
}

// logged counts what the log of all mounts says.
func (l *login) logged(text string) int {
	l.t.Helper()
	return strings.Count(l.read(l.log), text)
}

// TestLogins makes, mounts and mounts again a volume by each login, as doc/operations.md says, and is refused with wrong credentials.
func TestLogins(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.heading, func(t *testing.T) {
			l := newLogin(t, w)
			l.mount()
			l.write(l.path("letter"), "Dear reader")
			l.umount()
			l.renew()
			l.mount()
			if got := l.read(l.path("letter")); got != "Dear reader" {
				t.Errorf("%q", got)
			}
			l.umount()
			l.faults = true
			for _, wrong := range w.wrong {
				l.refused(wrong)
			}
			l.wantNoSecret("the log", l.read(l.log))
		})
	}
}

// TestLoginExpires lets tokens expire under a mount that asks Vault for nothing: it logs in again by itself, says once when that is
// refused, and goes on when it no longer is.
func TestLoginExpires(t *testing.T) {
	for _, w := range ways() {
		if w.entry == "" {
			continue
		}
		t.Run(w.heading, func(t *testing.T) {
			l := newLogin(t, w)
			l.mount()
			l.write(l.path("cold"), "content of cold")
			l.write(l.path("colder"), "content of colder")
			l.write(l.path("open"), "content of open")
			l.umount()
			l.renew()
			l.server.Write(w.entry, map[string]any{"token_ttl": "1s", "token_max_ttl": "3s"})
			before := l.logged("logged in to vault")
			l.mount()
			open, err := os.Open(l.path("open"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = open.Close() }() // only read; if it has not been closed
			l.until("two more logins", func() bool { return l.logged("logged in to vault") >= before+3 })
			if got := l.read(l.path("cold")); got != "content of cold" {
				t.Errorf("cold: %q", got)
			}
			l.write(l.path("new"), "content of new")
			if warnings := l.logged("level=WARN"); warnings != 0 {
				t.Errorf("%d warnings in the log", warnings)
			}

			w.wrong[0].spoil(l)
			l.until("a login that is refused", func() bool { return l.logged("vault login failed") > 0 })
			got := make([]byte, 7)
			if _, err := open.ReadAt(got, 0); err != nil || string(got) != "content" {
				t.Errorf("what is open: %q, %v", got, err)
			}
			before = l.logged("logged in to vault")
			l.renew()
			l.until("a login that is granted", func() bool { return l.logged("logged in to vault") > before })
			if got := l.read(l.path("colder")); got != "content of colder" {
				t.Errorf("colder: %q", got)
			}
			if failures := l.logged("vault login failed"); failures != 1 {
				t.Errorf("the refusal is logged %d times, want once", failures)
			}
			_ = open.Close() // only read
			l.umount()
			l.wantNoSecret("the log", l.read(l.log))
		})
	}
}
