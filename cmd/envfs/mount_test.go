package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/mountopt"
	"github.com/envfs/envfs/volume"
)

// parseMount reads a command line of mount as far as nothing is done yet.
func parseMount(args ...string) (mountRequest, error) {
	m := &mountCommand{app: newApp()}
	cmd := &cobra.Command{Use: "mount"}
	cmd.Flags().StringArrayVarP(&m.options, "options", "o", nil, "")
	cmd.Flags().BoolVarP(&m.foreground, "foreground", "f", false, "")
	m.addFlags(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return m.request, usagef(cmd, "%v", err)
	}
	if err := m.applyOptions(cmd); err != nil {
		return m.request, err
	}
	return m.request, m.request.check(cmd)
}

func TestMountRequest(t *testing.T) {
	t.Chdir("/")
	plain := mountRequest{Cache: "writeback", Xattr: "on", Safety: "blocks", Service: defaultServiceSettings(), Log: logSettings{Format: "text"}}
	tests := []struct {
		args   string
		change func(r *mountRequest)
	}{
		{"", func(*mountRequest) {}},
		{"-o ro,noatime", func(r *mountRequest) { r.Options = mountopt.Options{ReadOnly: true, NoAtime: true} }},
		{"-o ro -o rw", func(*mountRequest) {}},
		{"--crash-safety=full", func(r *mountRequest) { r.Safety = "full" }},
		{"-o crash-safety=full", func(r *mountRequest) { r.Safety = "full" }},
		{"--cache=writethrough", func(r *mountRequest) { r.Cache = "writethrough" }},
		{"-o cache=writethrough", func(r *mountRequest) { r.Cache = "writethrough" }},
		{"--xattr=off", func(r *mountRequest) { r.Xattr = "off" }},
		{"-o fastopen", func(r *mountRequest) { r.Options.FastOpen = true }},
		{"-o xattr=off", func(r *mountRequest) { r.Xattr = "off" }},
		{"--idle 30m", func(r *mountRequest) { r.Idle = 30 * time.Minute }},
		{"--idle 30m -o idle=1800s", func(r *mountRequest) { r.Idle = 30 * time.Minute }},
		{"--passphrase-file etc/pass", func(r *mountRequest) { r.Keys.PassphraseFile = "/etc/pass" }},
		{"--passphrase-file -", func(r *mountRequest) { r.Keys.PassphraseFile = "-" }},
		{"-o token-file=t,vault-addr=http://v:8200,transit-key=docs,transit-mount=kms", func(r *mountRequest) {
			r.Keys = keySettings{Login: loginSettings{Method: "token", TokenFile: "/t"}, VaultAddr: "http://v:8200", TransitKey: "docs", TransitMount: "kms"}
		}},
		{"--approle-role-id r --approle-secret-id-file s --namespace n", func(r *mountRequest) {
			r.Keys = keySettings{Login: loginSettings{Method: "approle", RoleID: "r", SecretIDFile: "/s"}, Namespace: "n"}
		}},
		{"--log journal --log-format json --log-level debug", func(r *mountRequest) {
			r.Log = logSettings{To: "journal", Format: "json", Level: slog.LevelDebug}
		}},
		{"-o log-file=var/log,log-level=WARN", func(r *mountRequest) {
			r.Log = logSettings{File: "/var/log", Format: "text", Level: slog.LevelWarn}
		}},
	}
	for _, test := range tests {
		want := plain
		test.change(&want)
		got, err := parseMount(strings.Fields(test.args)...)
		got.Options.Settings = nil // applied
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q gives\n%+v, %v, want\n%+v", test.args, got, err, want)
		}
	}
}

func TestMountRequestRefused(t *testing.T) {
	for args, want := range map[string]string{
		"--idle x":                         "invalid",
		"--idle -1s":                       "must not be negative",
		"-o idle":                          "needs a value",
		"-o idle=x":                        `mount option "idle"`,
		"-o foreground":                    `"foreground": not known`,
		"-o options=ro":                    `"options": not known`,
		"--crash-safety some":              "blocks|full",
		"--cache sometimes":                "writeback|writethrough",
		"-o cache=sometimes":               "writeback|writethrough",
		"--transit-key a -o transit-key=b": "given twice",
		"-o transit-key=a,transit-key=b":   "given twice",
		"--log nowhere":                    "stderr|syslog|journal|none",
		"--log syslog --log-file f":        "exclude each other",
		"--approle-secret-id-file s":       "belong together",
		"--token-file t --approle-role-id r --approle-secret-id-file s": "exclude each other",
		"--xattr maybe":                "on|off",
		"-o fastopen --audit-log /log": "fastopen",
		"-o fastopen,audit-syslog":     "fastopen",
	} {
		_, err := parseMount(strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%q gives %v with exit code %d, want %q", args, err, exitCode(err), want)
		}
	}
}

func TestCheckPin(t *testing.T) {
	vault := &volume.Config{Keyring: volume.KeyringRef{
		Type: volume.KeyringVault, Vault: &volume.VaultRef{Mount: "kms/eu", Key: "docs"},
	}}
	local := &volume.Config{Keyring: volume.KeyringRef{Type: volume.KeyringLocal}}
	tests := []struct {
		cfg        *volume.Config
		key, mount string
		want       error
	}{
		{vault, "", "", nil},
		{local, "", "", nil},
		{vault, "docs", "", nil},
		{vault, "docs", "kms/eu", nil},
		{vault, "", "/kms/eu/", nil},
		{vault, "other", "", errPinned},
		{vault, "Docs", "", errPinned},
		{vault, "docs", "kms", errPinned},
		{vault, "other", "kms/eu", errPinned},
		{local, "docs", "", errNotVaultKeyring},
		{local, "", "kms/eu", errNotVaultKeyring},
	}
	for _, test := range tests {
		k := keySettings{TransitKey: test.key, TransitMount: test.mount}
		err := k.checkPin(test.cfg)
		if test.want == nil && err != nil || test.want != nil && !strings.HasPrefix(err.Error(), test.want.Error()) {
			t.Errorf("pin %q at %q gives %v, want %v", test.key, test.mount, err, test.want)
		}
	}
}

func TestCheckNesting(t *testing.T) {
	top := t.TempDir()
	for _, dir := range []string{"vol/inside/deeper", "volume", "bind"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		dir, point string
		want       error
	}{
		{"vol", "volume", nil}, // a common beginning of the name means nothing
		{"volume", "vol", nil},
		{"vol", "vol", errSameDirectory},
		{"vol", "vol/inside", errInsideSource},
		{"vol", "vol/inside/deeper", errInsideSource},
		{"vol/inside", "vol", errSourceInside},
		{"vol", ".", errSourceInside},
	}
	if err := unix.Mount(filepath.Join(top, "vol"), filepath.Join(top, "bind"), "", unix.MS_BIND, ""); err == nil {
		t.Cleanup(func() { _ = unix.Unmount(filepath.Join(top, "bind"), unix.MNT_DETACH) })
		tests = append(tests, tests[0])
		tests[len(tests)-1] = struct {
			dir, point string
			want       error
		}{"bind", "vol/inside", errInsideSource}
	}
	for _, test := range tests {
		if err := checkNesting(filepath.Join(top, test.dir), filepath.Join(top, test.point)); err != test.want {
			t.Errorf("%s on %s: %v, want %v", test.dir, test.point, err, test.want)
		}
	}
}

func TestOthersAllowed(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "fuse.conf")
	for text, want := range map[string]bool{
		"":                                  false,
		"#user_allow_other\n":               false,
		"mount_max = 5\n":                   false,
		"user_allow_other":                  true,
		"# x\n  user_allow_other  \nmore\n": true,
	} {
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := othersAllowed(conf); got != want {
			t.Errorf("%q allows others: %v", text, got)
		}
	}
	if othersAllowed(conf + ".missing") {
		t.Error("a missing file allows others")
	}
}

func TestDaemonEnv(t *testing.T) {
	t.Chdir("/etc")
	got, err := daemonEnv([]string{
		"PATH=/bin", "VAULT_CACERT=ca.pem", "VAULT_CLIENT_KEY=/k.pem", "VAULT_CAPATH=",
		"NOTIFY_SOCKET=/run/notify", "VAULT_TOKEN=t", "EMPTY=",
	})
	want := []string{"PATH=/bin", "VAULT_CACERT=/etc/ca.pem", "VAULT_CLIENT_KEY=/k.pem", "VAULT_CAPATH=", "VAULT_TOKEN=t", "EMPTY="}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("environment is %q, %v, want %q", got, err, want)
	}
}
