package integration

import (
	"os"
	"strings"
	"testing"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// TestReadmeVault runs what README.md says about a first volume with Vault, in other places and with another server.
func TestReadmeVault(t *testing.T) {
	r := newPlace(t)
	s := vaulttest.Start(t)
	var script []string
	for _, line := range readmeCommands(t, "With Vault") {
		switch line {
		case "vault secrets enable transit": // it is
		case "vault write -f transit/keys/docs":
			s.CreateKey("docs", nil)
		default:
			if strings.HasPrefix(line, "vault ") {
				t.Fatalf("do by hand what this does: %s", line)
			}
			script = append(script, line)
		}
	}
	text := strings.NewReplacer("http://127.0.0.1:8200", s.Address, "VAULT_TOKEN=root", "VAULT_TOKEN="+s.RootToken,
		"/srv/data", r.dir, "/mnt/clear", r.mnt).Replace(strings.Join(script, "\n"))
	run(t, r.env, r.base, "bash", "-euc", text).ok()
	r.write(r.path("letter"), "Dear reader")
	if got := r.read(r.path("letter")); got != "Dear reader" {
		t.Errorf("%q", got)
	}
	r.umount()
}

// readmeCommands returns the commands in a section of README.md.
func readmeCommands(t *testing.T, title string) (lines []string) {
	t.Helper()
	content, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(content), "\n## "+title+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			command, _, _ = strings.Cut(command, " #")
			lines = append(lines, strings.TrimSpace(command))
		}
	}
	if !ok || len(lines) < 5 {
		t.Fatalf("no commands in the section %q", title)
	}
	return lines
}
