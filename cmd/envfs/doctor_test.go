package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// doctor runs envfs doctor and returns the lines of its answer, with one space
// for many.
func (p *vaultPlace) doctor(code int, args ...string) []string {
	p.t.Helper()
	out, _ := p.run(code, append([]string{"doctor"}, args...)...)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// wantLines looks for lines that begin so.
func wantLines(t *testing.T, lines []string, want ...string) {
	t.Helper()
	for _, begin := range want {
		found := false
		for _, line := range lines {
			found = found || strings.HasPrefix(line, begin)
		}
		if !found {
			t.Errorf("no line %q in\n%s", begin, strings.Join(lines, "\n"))
		}
	}
}

func TestDoctorVault(t *testing.T) {
	if ok, err := condition("fuse"); err != nil || !ok {
		t.Skip("no FUSE")
	}
	p := newVaultPlace(t)
	p.s.CreateKey("docs", nil)
	vol := p.path("vol")
	p.run(0, "init", "--keyring", "vault", "--transit-key", "docs", vol)
	wantLines(t, p.doctor(0, vol), "warning token a root token", "ok Transit key \"docs\": aes256-gcm96, version 1")
	wantLines(t, p.doctor(exitFailure, "--transit-key", "misspelt"), "problem Transit key", "hint: for a new volume, create it")

	hcl, _ := p.run(0, "policy", vol)
	p.s.Policy("mount", hcl)
	t.Setenv("VAULT_TOKEN", p.s.Token(2*time.Hour, "mount"))
	lines := p.doctor(0, vol)
	wantLines(t, lines,
		"ok server Vault 1.21.0 at "+p.s.Address, "ok TLS none", "ok seal unsealed", "ok clock", "ok login by VAULT_TOKEN",
		"ok token expires in ", "ok key versions all may unwrap",
		"ok transit/encrypt/docs update", "ok transit/decrypt/docs update", "ok transit/keys/docs read", "ok keyring Vault Transit")
	for _, line := range lines {
		if strings.HasPrefix(line, "problem") || strings.HasPrefix(line, "warning") && !strings.HasPrefix(line, "warning mount helper") &&
			!strings.HasPrefix(line, "warning swap") && !strings.HasPrefix(line, "warning open files") && !strings.HasPrefix(line, "warning locked") {
			t.Errorf("with the right policy: %s", line)
		}
	}
	wantLines(t, p.doctor(0), "ok login by VAULT_TOKEN") // without a volume
	wantLines(t, p.doctor(exitDenied, "--transit-key", "misspelt", vol), "problem keyring")
	wantLines(t, p.doctor(exitDenied, "--role", "rewrap", vol),
		"problem transit/rewrap/docs lacks update", "ok transit/keys/docs read",
		"hint: envfs policy --role rewrap --transit-mount transit --transit-key docs prints what to grant")

	p.s.Policy("mount", hcl+`path "transit/encrypt/docs" { capabilities = ["create", "update"] }`)
	wantLines(t, p.doctor(0, vol), "warning transit/encrypt/docs update, and create")
	p.s.ConfigureKey("docs", map[string]any{"exportable": true, "allow_plaintext_backup": true, "deletion_allowed": true})
	wantLines(t, p.doctor(0, vol), "warning exportable", "warning plaintext backup", "warning deletion", "hint: vault write transit/keys/docs/config deletion_allowed=false")
	p.s.RotateKey("docs")
	p.s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	wantLines(t, p.doctor(exitDenied, vol), "problem key versions the volume key is wrapped by version 1, but versions below 2 may not unwrap")
	wantLines(t, p.doctor(0, "--transit-key", "docs"), "ok key versions 2 to 2 may unwrap")

	p.s.Seal()
	wantLines(t, p.doctor(exitUnreachable, vol), "ok server", "problem seal sealed")
	p.s.Unseal()
	p.s.Stop()
	wantLines(t, p.doctor(exitUnreachable, vol), "problem server", "hint: is vault running at "+p.s.Address)
}

func TestDoctorLogins(t *testing.T) {
	if ok, err := condition("fuse"); err != nil || !ok {
		t.Skip("no FUSE")
	}
	p := newVaultPlace(t)
	create := func(r api.TokenCreateRequest) string {
		reply, err := p.s.Root.Auth().Token().Create(&r)
		if err != nil {
			t.Fatal(err)
		}
		return reply.Auth.ClientToken
	}
	no := false
	for name, test := range map[string]struct {
		token string
		code  int
		want  string
	}{
		"garbage":       {"hvs.garbage", exitDenied, "problem login"},
		"not renewable": {create(api.TokenCreateRequest{TTL: "1h30m", Renewable: &no, Policies: []string{"default"}}), exitOK, "warning token expires in 1h"},
		"few uses":      {create(api.TokenCreateRequest{NumUses: 20, Policies: []string{"default"}}), exitOK, "warning token good for 1"},
		"no default":    {create(api.TokenCreateRequest{Policies: []string{"x"}, NoDefaultPolicy: true}), exitOK, "warning token it may not look itself up"},
	} {
		t.Setenv("VAULT_TOKEN", test.token)
		t.Run(name, func(t *testing.T) {
			p := *p
			p.t = t
			wantLines(t, p.doctor(test.code), test.want)
		})
	}

	// A wrapping token is not used up.
	roleID, _ := p.s.AppRole("envfs", 0, "default")
	client := p.s.Client(p.s.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := client.Logical().Write("auth/approle/role/envfs/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("wrapped"), []byte(wrapped.WrapInfo.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--approle-role-id", roleID, "--approle-wrapped-secret-id-file", p.path("wrapped")}
	for range 2 {
		wantLines(t, p.doctor(0, flags...), "ok login not tried, since it would use up the wrapped secret ID; its wrapping token (of auth/approle/role/envfs/secret-id) is good for 4m")
	}
	if _, err := p.s.Client(wrapped.WrapInfo.Token).Logical().Unwrap(""); err != nil {
		t.Fatal(err)
	}
	wantLines(t, p.doctor(exitDenied, flags...), "problem login", "hint: put a new wrapping token there")
}

func TestDoctorTLS(t *testing.T) {
	if ok, err := condition("fuse"); err != nil || !ok {
		t.Skip("no FUSE")
	}
	p := newVaultPlaceWith(t, vaulttest.Options{TLS: true})
	wantLines(t, p.doctor(exitFailure), "problem server", "hint: VAULT_CACERT")
	t.Setenv("VAULT_CACERT", p.s.CACert)
	wantLines(t, p.doctor(0), "warning TLS the server's certificate expires in 23h59m")
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	wantLines(t, p.doctor(0), "warning TLS the server's certificate is not checked")
}

func TestDoctorCode(t *testing.T) {
	for _, test := range []struct {
		codes []int
		want  int
	}{
		{nil, exitOK},
		{[]int{exitFailure}, exitFailure},
		{[]int{exitFailure, exitDamage}, exitDamage},
		{[]int{exitDamage, exitDenied, exitFailure}, exitDenied},
		{[]int{exitDenied, exitUnreachable}, exitUnreachable},
	} {
		r := &doctorReport{}
		s := section{"x", r}
		s.ok("a", "")
		s.warn("b", "", "")
		for _, code := range test.codes {
			s.add(finding{Status: statusProblem, code: code})
		}
		if got := r.code(); got != test.want || r.Problems != len(test.codes) || r.OK != 1 || r.Warnings != 1 {
			t.Errorf("%v: %d, %+v", test.codes, got, r)
		}
	}
}

func TestDoctorText(t *testing.T) {
	r := &doctorReport{}
	section{"system", r}.ok("FUSE", "there")
	section{"system", r}.warn("mount helper", "make it", "missing")
	section{"vault", r}.problem("key", "", "gone")
	var plain, coloured strings.Builder
	if err := r.write(&plain, false); err != nil {
		t.Fatal(err)
	}
	const want = `system
  ok       FUSE          there
  warning  mount helper  missing
                         hint: make it

vault
  problem  key           gone

1 ok, 1 warning, 1 problem
`
	if plain.String() != want {
		t.Errorf("%s\nwant\n%s", &plain, want)
	}
	if err := r.write(&coloured, true); err != nil {
		t.Fatal(err)
	}
	if got := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[31m", "", "\x1b[0m", "").Replace(coloured.String()); got != want {
		t.Errorf("with colours: %s", got)
	}
	if n := strings.Count(coloured.String(), "\x1b["); n != 6 {
		t.Errorf("%d changes of colour, want 6", n)
	}
}

// machine makes a root of files for the doctor.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDoctorSwap(t *testing.T) {
	const head = "Filename\tType\tSize\tUsed\tPriority\n"
	for name, test := range map[string]struct {
		files map[string]string
		want  status
	}{
		"none":            {map[string]string{"proc/swaps": head}, statusOK},
		"partition":       {map[string]string{"proc/swaps": head + "/dev/sda2 partition 1 0 -2\n"}, statusWarning},
		"file":            {map[string]string{"proc/swaps": head + "/swap.img file 1 0 -2\n"}, statusWarning},
		"zram":            {map[string]string{"proc/swaps": head + "/dev/zram0 partition 1 0 100\n"}, statusOK},
		"zram, no device": {map[string]string{"proc/swaps": head + "/dev/zram0 partition 1 0 100\n", "sys/block/zram0/backing_dev": "none\n"}, statusOK},
		"zram on disk":    {map[string]string{"proc/swaps": head + "/dev/zram0 partition 1 0 100\n", "sys/block/zram0/backing_dev": "/dev/sda\n"}, statusWarning},
		"LUKS":            {map[string]string{"proc/swaps": head + "/dev/dm-0 partition 1 0 -2\n", "sys/block/dm-0/dm/uuid": "CRYPT-PLAIN-swap\n"}, statusOK},
		"LUKS by name": {map[string]string{"proc/swaps": head + "/dev/mapper/swap partition 1 0 -2\n", "dev/mapper/swap": "-> ../dm-3",
			"dev/dm-3": "", "sys/block/dm-3/dm/uuid": "CRYPT-PLAIN-swap\n"}, statusOK},
		"LVM on LUKS": {map[string]string{"proc/swaps": head + "/dev/dm-1 partition 1 0 -2\n", "sys/block/dm-1/dm/uuid": "LVM-x\n",
			"sys/block/dm-1/slaves/dm-0": "", "sys/block/dm-0/dm/uuid": "CRYPT-LUKS2-x\n"}, statusOK},
		"LVM on disk": {map[string]string{"proc/swaps": head + "/dev/dm-1 partition 1 0 -2\n", "sys/block/dm-1/dm/uuid": "LVM-x\n",
			"sys/block/dm-1/slaves/sda2": ""}, statusWarning},
		"LVM on both": {map[string]string{"proc/swaps": head + "/dev/dm-1 partition 1 0 -2\n", "sys/block/dm-1/dm/uuid": "LVM-x\n",
			"sys/block/dm-1/slaves/dm-0": "", "sys/block/dm-0/dm/uuid": "CRYPT-LUKS2-x\n", "sys/block/dm-1/slaves/sda2": ""}, statusWarning},
		"one of two": {map[string]string{"proc/swaps": head + "/dev/zram0 partition 1 0 100\n/dev/sda2 partition 1 0 -2\n"}, statusWarning},
	} {
		r := &doctorReport{}
		(&system{root: machine(t, test.files)}).examineSwap(section{"system", r})
		if got := r.Findings[0]; len(r.Findings) != 1 || got.Status != test.want {
			t.Errorf("%s: %+v, want %s", name, r.Findings, test.want)
		}
	}
}

func TestDoctorLimits(t *testing.T) {
	for _, test := range []struct {
		s    system
		want string
	}{
		{system{memlock: 64 << 10, nofile: 1024}, "warning warning"},
		{system{memlock: wantedMemlock - 1, nofile: wantedFiles - 1}, "warning warning"},
		{system{memlock: wantedMemlock, nofile: wantedFiles}, "ok ok"},
		{system{memlock: 64 << 10, canLock: true, nofile: 1 << 20}, "ok ok"},
		{system{memlock: 1<<64 - 1, nofile: 1 << 20}, "ok ok"},
	} {
		r := &doctorReport{}
		test.s.examineLimits(section{"system", r})
		if got := string(r.Findings[0].Status + " " + r.Findings[1].Status); got != test.want {
			t.Errorf("%+v: %s, want %s", test.s, got, test.want)
		}
	}
}

func TestDoctorMountHelper(t *testing.T) {
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  status
	}{
		"missing":         {nil, statusWarning},
		"dangling":        {map[string]string{"sbin/mount.envfs": "-> /nonexistent"}, statusWarning},
		"this program":    {map[string]string{"sbin/mount.envfs": "-> " + own}, statusOK},
		"another program": {map[string]string{"sbin/mount.envfs": "#!/bin/sh\n"}, statusWarning},
		"no program":      {map[string]string{"sbin/mount.envfs": "-> /etc/passwd"}, statusProblem},
	} {
		r := &doctorReport{}
		(&system{root: machine(t, test.files)}).examineMountHelper(section{"system", r})
		if got := r.Findings[0]; got.Status != test.want || (got.Status != statusOK) != (got.Hint != "") {
			t.Errorf("%s: %+v, want %s", name, got, test.want)
		}
	}
}

func TestDoctorFuse(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		uid   int
		want  map[string]status
	}{
		"root":             {map[string]string{"dev/fuse": ""}, 0, map[string]status{"FUSE": statusOK, "fusermount3": statusOK, "allow_other": statusOK}},
		"no device":        {nil, 0, map[string]status{"FUSE": statusProblem}},
		"user":             {map[string]string{"dev/fuse": "", "etc/fuse.conf": "#user_allow_other\n"}, 1000, map[string]status{"FUSE": statusOK, "allow_other": statusWarning}},
		"user, configured": {map[string]string{"dev/fuse": "", "etc/fuse.conf": "user_allow_other\n"}, 1000, map[string]status{"allow_other": statusOK}},
	} {
		r := &doctorReport{}
		(&system{root: machine(t, test.files), uid: test.uid}).examineFuse(section{"system", r})
		got := map[string]status{}
		for _, f := range r.Findings {
			got[f.Name] = f.Status
		}
		for thing, want := range test.want {
			if got[thing] != want {
				t.Errorf("%s: %s is %q, want %q", name, thing, got[thing], want)
			}
		}
	}
}

func TestIsLocalAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"http://127.0.0.1:8200": true, "http://localhost:8200": true, "http://[::1]:8200": true, "unix:///run/agent.sock": true,
		"http://vault:8200": false, "http://10.0.0.1": false, "http://localhost.example.com": false, "://": false,
	} {
		if got := isLocalAddress(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}
