package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// TestReadmeVault runs what README.md says about a first volume with Vault, in other places and with another server.
func TestReadmeVault(t *testing.T) {
	r := newPlace(t)
	s := vaulttest.Start(t)
	var script []string
	for _, line := range commandsIn(t, "../README.md", "## With Vault") {
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
		"/srv/docs", r.dir, "/mnt/docs", r.mnt).Replace(strings.Join(script, "\n"))
	run(t, r.env, r.base, "bash", "-euc", text).ok()
	r.write(r.path("letter"), "Dear reader")
	if got := r.read(r.path("letter")); got != "Dear reader" {
		t.Errorf("%q", got)
	}
	r.umount()
}

// TestReadmePassphrase runs on a terminal, one after the other, what README.md says about a volume with a passphrase, about its
// backup, and about one file of that.
func TestReadmePassphrase(t *testing.T) {
	need(t, "script", "rsync")
	r := newPlace(t)
	home := r.below("home")
	for _, dir := range []string{"home/documents", "backup", "safe"} {
		r.mkdir(r.below(dir))
	}
	r.write(filepath.Join(home, "documents/letter.txt"), "Dear reader")
	script := []string{`set -eu`}
	for _, section := range []string{"## With a passphrase", "## Backups and restores"} {
		script = append(script, commandsIn(t, "../README.md", section)...)
	}
	text := strings.NewReplacer("/srv/data", r.dir, "/mnt/clear", r.mnt, "/mnt/restored", r.below("mounted"), "/backup", r.below("backup"),
		"/safe", r.below("safe"), "/srv/", r.base+"/", "| less", "| cat", "cd ", "cp "+r.dir+"/envfs.json "+r.below("safe")+"; cd ").
		Replace(strings.Join(script, "\n"))
	r.write(r.below("readme.sh"), text)
	// What is typed is read by whoever asks.
	typed := strings.Repeat("correct horse battery staple\n", strings.Count(text, "envfs ")+1)
	out := run(t, r.env, r.base, "bash", "-c", `printf %s "$1" | script -qec "bash readme.sh" /dev/null`, "bash", typed).ok().stdout
	if !strings.Contains(out, "Dear reader") {
		t.Errorf("the terminal shows no letter:\n%s", out)
	}
	for _, copied := range []string{"home/letter.txt", "home/again.txt", "restored/documents/letter.txt", "rescued/documents/letter.txt"} {
		if got := r.read(r.below(copied)); got != "Dear reader" {
			t.Errorf("%s: %q", copied, got)
		}
	}
	r.write(r.pass, "correct horse battery staple\n")
	r.mountFlags = []string{"--passphrase-file", r.pass}
	r.mount()
	for _, name := range []string{"documents/letter.txt", "more/letter.txt"} {
		if got := r.read(r.path(name)); got != "Dear reader" {
			t.Errorf("%s: %q", name, got)
		}
	}
	r.umount()
}

// commandsIn returns the commands below a heading of a document, those below its own headings included.
func commandsIn(t *testing.T, path, heading string) (lines []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	marks, _, _ := strings.Cut(heading, " ")
	within := false
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		if mark, _, _ := strings.Cut(line, " "); strings.HasPrefix(marks, mark) && mark != "" {
			within = line == heading
		}
		if command, ok := strings.CutPrefix(line, "    "); ok && within {
			command, _, _ = strings.Cut(command, " #")
			lines = append(lines, strings.TrimSpace(command))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("no commands below %q in %s", heading, path)
	}
	return lines
}
