package integration

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// TestVaultPolicies mounts with tokens that may do just enough.
func TestVaultPolicies(t *testing.T) {
	r, s := newVaultRig(t, nil)
	r.mount()
	r.write(r.path("letter"), "Dear reader")
	r.umount()
	for _, policy := range []string{"readonly", "decrypt"} {
		t.Run(policy+", mounted read-only", func(t *testing.T) {
			r.login(s, s.Token(0, policy))
			r.mount("-o", "ro")
			if got := r.read(r.path("letter")); got != "Dear reader" {
				t.Errorf("%q", got)
			}
			if err := os.WriteFile(r.path("new"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
				t.Errorf("writing: %v, want EROFS", err)
			}
			r.umount()
		})
	}
	// Who may decrypt only, and mounts for writing, can read, change and remove; a new file needs a new key.
	t.Run("readonly, mounted for writing", func(t *testing.T) {
		r.faults = true
		r.login(s, s.Token(0, "readonly"))
		r.mount()
		r.sh(`echo more >> letter; grep -q Dear letter; grep -q more letter; mkdir made; mv letter made/; chmod 640 made/letter`)
		f, err := os.Create(r.path("new"))
		if err == nil {
			_, err = f.WriteString("x")
			err = errors.Join(err, f.Sync(), f.Close())
		}
		if !errors.Is(err, syscall.EACCES) {
			t.Errorf("a new file: %v, want EACCES", err)
		}
		r.sh(`rm -f new; cat made/letter; rm -r made`)
		r.umount()
	})
}

// TestVaultRefused mounts and makes volumes where Vault says no. Each message says why, and nothing changes.
func TestVaultRefused(t *testing.T) {
	r, s := newVaultRig(t, nil)
	s.Policy("nothing", `path "transit/nothing" { capabilities = ["deny"] }`)
	s.CreateKey("other", nil)
	s.Policy("other", `path "transit/+/other" { capabilities = ["update", "read"] }`)
	expired := s.Token(0, "readwrite")
	s.Revoke(expired)
	home, address := "HOME="+r.below("home"), "VAULT_ADDR="+s.Address
	good := "VAULT_TOKEN=" + s.Token(0, "readwrite")
	root := "VAULT_TOKEN=" + s.RootToken
	r.write(r.below("empty"), "")
	r.write(r.below("secret-id"), "11111111-2222-3333-4444-555555555555")

	for _, test := range []struct {
		name     string
		env      []string
		args     []string // of both commands
		code     int
		patterns []string
	}{
		{"no policy", []string{address, "VAULT_TOKEN=" + s.Token(0, "nothing")}, nil, 3,
			[]string{`^envfs: .*access denied by the key service.*permission denied`, `^hint: the token's policies must allow this`}},
		{"policy of another key", []string{address, "VAULT_TOKEN=" + s.Token(0, "other")}, nil, 3, []string{`access denied by the key service`}},
		{"revoked token", []string{address, "VAULT_TOKEN=" + expired}, nil, 3,
			[]string{`^envfs: .*access denied by the key service: the token of VAULT_TOKEN has expired or was revoked$`, "^hint: get a new one: `vault login`"}},
		{"no token", []string{address}, nil, 3, []string{`^envfs: .*no token`, "^hint: log in: `vault login`, or set VAULT_TOKEN"}},
		{"empty token file", []string{address}, []string{"--token-file", r.below("empty")}, 3, []string{`no token in .*empty`}},
		{"missing token file", []string{address}, []string{"--token-file", r.below("missing")}, 3, []string{`missing: no such file or directory`}},
		{"wrong secret ID", []string{address}, []string{"--approle-role-id", "x", "--approle-secret-id-file", r.below("secret-id")}, 3,
			[]string{`log in to vault: access denied by the key service`}},
		{"nobody listens", []string{address, good}, []string{"--vault-addr", "http://127.0.0.1:1"}, 4,
			[]string{`^envfs: .*key service unreachable.*connection refused`, `^hint: is vault running at http://127.0.0.1:1\? VAULT_ADDR says where to look$`}},
		{"no address at all", []string{"VAULT_ADDR=::bad::", good}, nil, 1, []string{`^envfs: .*key service misconfigured`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := *r // with this test's reports and variables
			r.t, r.env = t, append([]string{home}, test.env...)
			r.refusesBoth(test.code, test.args, test.patterns...)
		})
	}

	// What init can be told wrongly, even by root.
	for _, test := range []struct {
		name     string
		args     []string
		code     int
		patterns []string
	}{
		{"missing key", []string{"--transit-key", "misspelt"}, 1,
			[]string{`^envfs: .*there is no key "misspelt" in the transit engine at transit/$`, `vault write -f transit/keys/misspelt$`}},
		{"wrong mount", []string{"--transit-key", "docs", "--transit-mount", "elsewhere"}, 1,
			[]string{`^envfs: .*key service misconfigured`, `^hint: no secrets engine is mounted there`}},
		{"path in a key's name", []string{"--transit-key", "../../sys/seal"}, 1, []string{`^envfs: `}},
		{"path in a mount's name", []string{"--transit-key", "docs", "--transit-mount", "transit/../sys"}, 1, []string{`^envfs: `}},
		{"no key named", nil, 2, []string{`^envfs: --keyring vault needs --transit-key$`, `^hint: see envfs init --help$`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := *r
			r.t, r.env = t, []string{home, address, root}
			args := append([]string{"init", "--keyring", "vault"}, test.args...)
			unchanged(t, r.base, func() { r.envfs(append(args, r.below("new"))...).fails(test.code, test.patterns...) })
		})
	}
	if secret, err := s.Root.Logical().Read("transit/keys/misspelt"); err != nil || secret != nil {
		t.Errorf("a misspelt key was created: %v %v", secret, err)
	}

	t.Run("pinned to another key", func(t *testing.T) {
		r := *r
		r.t, r.env = t, []string{home, address, good}
		for _, flags := range [][]string{{"--transit-key", "other"}, {"-o", "transit-key=other"}} {
			unchanged(t, r.dir, func() {
				r.envfs(append(append([]string{"mount"}, flags...), r.dir, r.mnt)...).
					fails(3, `^envfs: .*names another Transit key.*: "docs", not "other"$`, `^hint: .*exchanged envfs.json`)
			})
		}
	})

	t.Run("key deleted", func(t *testing.T) {
		r := *r
		r.t, r.env = t, []string{home, address, good}
		s.DeleteKey("docs")
		unchanged(t, r.dir, func() {
			r.envfs("mount", r.dir, r.mnt).fails(1, `^envfs: .*there is no key "docs" in the transit engine at transit/$`)
		})
		s.CreateKey("docs", nil) // another one of the same name
		unchanged(t, r.dir, func() { r.envfs("mount", r.dir, r.mnt).fails(5, `^envfs: .*wrapped key cannot be authenticated`) })
	})
}

// refusesBoth tries to mount the volume and to make another one, in vain.
func (r *rig) refusesBoth(code int, args []string, patterns ...string) {
	r.t.Helper()
	unchanged(r.t, r.base, func() {
		r.t.Helper()
		r.envfs(append(append([]string{"mount"}, args...), r.dir, r.mnt)...).fails(code, patterns...)
		if left := mountpoints(r.t, r.base); left != nil {
			r.t.Errorf("mounted: %v", left)
		}
		made := append([]string{"init", "--keyring", "vault", "--transit-key", "docs"}, args...)
		r.envfs(append(made, r.below("new"))...).fails(code, patterns...)
	})
}
