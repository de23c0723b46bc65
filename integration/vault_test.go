package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// The policies of each role, as small as they can be.
const (
	policyReadWrite = `
path "transit/encrypt/docs" { capabilities = ["update"] }
path "transit/decrypt/docs" { capabilities = ["update"] }
path "transit/keys/docs"    { capabilities = ["read"] }`
	policyReadOnly = `
path "transit/decrypt/docs" { capabilities = ["update"] }
path "transit/keys/docs"    { capabilities = ["read"] }`
	policyDecryptOnly = `
path "transit/decrypt/docs" { capabilities = ["update"] }`
)

// newVaultPlace makes a rig without a volume beside a server with the key docs, for a token of the policy readwrite.
func newVaultPlace(t *testing.T, key map[string]any) (*rig, *vaulttest.Server) {
	t.Helper()
	r := newPlace(t)
	s := vaulttest.Start(t)
	s.CreateKey("docs", key)
	s.Policy("readwrite", policyReadWrite)
	s.Policy("readonly", policyReadOnly)
	s.Policy("decrypt", policyDecryptOnly)
	r.login(s, s.Token(0, "readwrite"))
	return r, s
}

// newVaultRig makes such a rig with a volume, not mounted.
func newVaultRig(t *testing.T, key map[string]any) (*rig, *vaulttest.Server) {
	t.Helper()
	r, s := newVaultPlace(t, key)
	r.initVault().ok()
	return r, s
}

// login makes a token that of all later commands.
func (r *rig) login(s *vaulttest.Server, token string) {
	r.env = []string{"HOME=" + r.below("home"), "VAULT_ADDR=" + s.Address, "VAULT_TOKEN=" + token}
}

func (r *rig) initVault(flags ...string) result {
	r.t.Helper()
	args := append([]string{"init", "--keyring", "vault", "--transit-key", "docs"}, flags...)
	return r.envfs(append(args, r.dir)...)
}

// info is a part of what envfs info --json says.
type info struct {
	Volume struct {
		SlotSize   int `json:"slot_size"`
		KEKVersion int `json:"kek_version"`
		Keyring    struct {
			Type  string
			Mount string `json:"transit_mount"`
			Key   string `json:"transit_key"`
		}
		Tree struct{ Files, Directories, Foreign int }
	}
	Entry struct {
		Ciphertext string `json:"ciphertext_path"`
		Plaintext  string `json:"plaintext_path"`
	}
	File struct {
		Header struct {
			Sealed     bool
			KEKVersion int `json:"kek_version"`
		}
	}
}

func (r *rig) info(path string) (i info) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(r.envfs("info", "--json", path).ok().stdout), &i); err != nil {
		r.t.Fatal(err)
	}
	return i
}

// writesAndReads uses a mount, and checks after a remount what is there.
func (r *rig) writesAndReads() {
	r.t.Helper()
	makeTree(r.t, r.path("tree"))
	want := snapshot(r.t, r.path("tree"))
	r.remount()
	got := snapshot(r.t, r.path("tree"))
	sameTree(r.t, want, got)
	r.umount()
}

// TestVaultKeys mounts volumes under Transit keys of each kind.
func TestVaultKeys(t *testing.T) {
	for _, test := range []struct {
		name string
		key  map[string]any
		slot int
	}{
		{"default", nil, 512},
		{"derived", map[string]any{"derived": true}, 512},
		{"chacha20", map[string]any{"type": "chacha20-poly1305"}, 512},
		{"aes128", map[string]any{"type": "aes128-gcm96"}, 512},
		{"rsa-2048", map[string]any{"type": "rsa-2048"}, 512},
		{"rsa-4096", map[string]any{"type": "rsa-4096"}, 1024},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, _ := newVaultRig(t, test.key)
			i := r.info(r.dir).Volume
			if i.SlotSize != test.slot || i.Keyring.Type != "vault" || i.Keyring.Mount != "transit" || i.Keyring.Key != "docs" || i.KEKVersion != 1 {
				t.Errorf("%+v, want slots of %d bytes and the key docs at transit", i, test.slot)
			}
			if config := r.read(r.dir + "/envfs.json"); strings.Contains(config, "127.0.0.1") {
				t.Error("envfs.json names the server")
			}
			r.mount("--transit-key", "docs")
			r.writesAndReads()
		})
	}
}

// TestVaultLogins mounts with each way to log in.
func TestVaultLogins(t *testing.T) {
	r, s := newVaultRig(t, nil)
	token := s.Token(0, "readwrite")
	roleID, secretID := s.AppRole("envfs", time.Hour, "readwrite")
	address := "VAULT_ADDR=" + s.Address
	home := "HOME=" + r.below("home")
	r.write(r.below("token"), token+"\n")
	r.write(r.below("secret-id"), secretID+"\n")
	s.Write("auth/userpass/users/ann", map[string]any{"password": "pass word", "token_policies": "readwrite"})
	r.write(r.below("password"), "pass word\n")
	for _, test := range []struct {
		name  string
		env   []string
		flags []string
	}{
		{"VAULT_TOKEN", []string{home, address, "VAULT_TOKEN=" + token}, nil},
		{"token file", []string{home, address}, []string{"--token-file", r.below("token")}},
		{"token file before VAULT_TOKEN", []string{home, address, "VAULT_TOKEN=wrong"}, []string{"--token-file", r.below("token")}},
		{"AppRole", []string{home, address}, []string{"--approle-role-id", roleID, "--approle-secret-id-file", r.below("secret-id")}},
		{"AppRole before VAULT_TOKEN", []string{home, address, "VAULT_TOKEN=wrong"}, []string{"--approle-role-id", roleID, "--approle-secret-id-file", r.below("secret-id")}},
		{"userpass", []string{home, address}, []string{"--userpass-username", "ann", "--userpass-password-file", r.below("password")}},
		{"--vault-addr before VAULT_ADDR", []string{home, "VAULT_ADDR=http://127.0.0.1:9", "VAULT_TOKEN=" + token}, []string{"--vault-addr", s.Address}},
		{"vault login", []string{home, address}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name == "vault login" {
				r.write(r.below("home/.vault-token"), token)
			}
			r.env = test.env
			r.mountFlags = test.flags
			r.mount()
			r.write(r.path("letter"), test.name)
			r.remount()
			if got := r.read(r.path("letter")); got != test.name {
				t.Errorf("%q, want %q", got, test.name)
			}
			r.umount()
		})
	}
	for _, secret := range []string{token, secretID} {
		if strings.Contains(r.read(r.log), secret) {
			t.Error("a credential is in the log")
		}
	}
}

// TestVaultTLS mounts over TLS with a certificate authority of the test, named by a relative path.
func TestVaultTLS(t *testing.T) {
	r := newPlace(t)
	s := vaulttest.StartWith(t, vaulttest.Options{TLS: true})
	s.CreateKey("docs", nil)
	s.Policy("readwrite", policyReadWrite)
	r.login(s, s.Token(0, "readwrite"))
	r.initVault().fails(1, `^envfs: .*certificate`, `^hint: VAULT_CACERT`)
	r.write(r.below("ca.pem"), r.read(s.CACert))
	r.env = append(r.env, "VAULT_CACERT=ca.pem")
	r.initVault().ok()
	r.mount()
	r.writesAndReads()
}

// TestVaultRotate rotates the key under a mount.
func TestVaultRotate(t *testing.T) {
	r, s := newVaultRig(t, nil)
	r.mount()
	write := func(name string) { r.write(r.path(name), "content of "+name) }
	write("old")
	s.RotateKey("docs")
	// DEKs are wrapped ahead of need, so the next files may still be of version 1.
	version := func(name string) int { return r.info(r.path(name)).File.Header.KEKVersion }
	last := ""
	for i := range 1000 {
		last = fmt.Sprintf("new-%d", i)
		write(last)
		if i%50 == 49 && version(last) == 2 {
			break
		}
	}
	if v := version(last); v != 2 {
		t.Errorf("%s is wrapped by version %d, want 2", last, v)
	}
	if v := version("old"); v != 1 {
		t.Errorf("old is wrapped by version %d, want 1", v)
	}
	text := r.envfs("info", r.path(last)).ok().stdout
	if !strings.Contains(text, "wrapped by key version 2") {
		t.Errorf("info does not tell the version:\n%s", text)
	}
	r.remount()
	for _, name := range []string{"old", last} {
		if got := r.read(r.path(name)); got != "content of "+name {
			t.Errorf("%s: %q", name, got)
		}
	}
	write("after")
	if v := version("after"); v != 2 {
		t.Errorf("a file made after the remount is wrapped by version %d", v)
	}
}
