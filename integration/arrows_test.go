package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/envfs/envfs/"

// arrows says which packages of the module a package may import: the first pattern that fits counts. Patterns are regular
// expressions over paths below the module. What no row names may import nothing of the module.
var arrows = []struct{ importer, imported string }{
	{`cmd/envfs(/.*)?`, `cmd/envfs/internal/.*|fs|volume|keyring(/.*)?|crypto|internal/(secret|audit|control)`},
	{`fs`, `volume|crypto|keyring|internal/.*`},
	{`volume`, `crypto|keyring|keyring/local|internal/.*`},
	{`keyring/keyringtest`, `keyring|internal/secret`},
	{`keyring/vault`, `keyring|internal/secret`},
	{`keyring/local`, `keyring|internal/secret|crypto`}, // crypto: the same cipher for its KEK
	{`keyring`, `internal/secret`},
	{`crypto`, `internal/secret`},
	{`internal/backing/powercut`, `internal/backing`},
	{`integration/.*`, `integration/.*|keyring/vault/vaulttest`},
}

// outside says which packages alone may import a library.
var outside = []struct{ library, importer string }{
	{`github.com/hanwen/go-fuse/.*`, `fs`},
	{`github.com/hashicorp/.*`, `keyring/vault(/vaulttest)?`},
	{`github.com/spf13/.*`, `cmd/envfs(/.*)?`},
	{`log`, `cmd/envfs(/.*)?|fs`}, // go-fuse wants such a logger; all else takes a *slog.Logger
	{`github.com/tink-crypto/.*|golang.org/x/crypto/.*`, `crypto|keyring/local`},
}

// pkg is what the test reads of go list -json.
type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func goList(t *testing.T, args ...string) (packages []pkg) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func fits(pattern, path string) bool {
	return regexp.MustCompile("^(" + pattern + ")$").MatchString(path)
}

// TestArrows keeps the layers of the program apart.
func TestArrows(t *testing.T) {
	packages := goList(t, "-json=ImportPath,Imports,TestImports,XTestImports,Deps", "./...")
	if len(packages) < 8 {
		t.Fatalf("only %d packages", len(packages))
	}
	for _, p := range packages {
		importer := strings.TrimPrefix(p.ImportPath, module)
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, module); ok && !fits(allowed(importer), own) {
				t.Errorf("%s imports %s: may import %q only", importer, own, allowed(importer))
			}
			for _, row := range outside {
				if fits(row.library, imported) && !fits(row.importer, importer) {
					t.Errorf("%s imports %s: %s alone may", importer, imported, row.importer)
				}
			}
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if strings.HasPrefix(imported, module+"integration") && !strings.HasPrefix(importer, "integration") {
				t.Errorf("%s imports %s, which only drives the program", importer, imported)
			}
		}
		for _, dep := range p.Deps {
			if fits(`.*/keyringtest|.*/vaulttest|.*/powercut|github.com/hashicorp/vault/(vault|sdk)(/.*)?`, dep) &&
				!fits(`.*test|integration(/.*)?`, importer) {
				t.Errorf("%s depends on %s", importer, dep)
			}
		}
	}
}

// allowed returns the pattern of what a package may import.
func allowed(importer string) string {
	for _, row := range arrows {
		if fits(row.importer, importer) {
			return row.imported
		}
	}
	return "nothing"
}

// TestServerIsApart: the Vault server for tests, which has another licence, is in nothing that is built from the module.
func TestServerIsApart(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?m)github.com/hashicorp/vault(/sdk)? .*$`).Find(text); found != nil {
		t.Errorf("go.mod requires the server: %s", found)
	}
	if _, err := os.Stat("vaultserver/go.mod"); err != nil {
		t.Errorf("the server is no module of its own: %v", err)
	}
}
