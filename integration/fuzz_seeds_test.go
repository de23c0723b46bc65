package integration

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestFuzzTargetsHaveSeeds: without seeds a target that finds nothing would look like a good one. The list is of what reads
// anything that envfs did not write in the same breath.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	want := map[string]bool{
		"crypto.FuzzDecodeSlot": true, "crypto.FuzzNewestSlot": true, "crypto.FuzzSealedPart": true, "crypto.FuzzOpenBlocks": true,
		"crypto.FuzzNameDecrypt": true, "crypto.FuzzCheckLong": true, "crypto.FuzzLinkDecrypt": true, "crypto.FuzzValueOpen": true,
		"crypto.FuzzLayout": true, "volume.FuzzParseConfig": true, "volume.FuzzInspectHeader": true, "volume.FuzzRekeyJournal": true,
		"keyring.FuzzWrappedParse": true, "keyring/vault.FuzzParseResults": true, "keyring/local.FuzzOpenConfig": true,
		"internal/audit.FuzzLineLosesNothing": true, "internal/control.FuzzReadRequest": true,
		"cmd/envfs/internal/mountopt.FuzzParse": true, "cmd/envfs/internal/mounts.FuzzParse": true,
	}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			if !addsSeed(f) {
				t.Errorf("%s: %s adds no seed", path, f.Name.Name)
			}
			delete(want, strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")+"."+f.Name.Name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for target := range want {
		t.Errorf("no fuzz target %s", target)
	}
}

// addsSeed reports whether a fuzz target calls f.Add before it is fuzzed, in any case or for a list.
func addsSeed(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "Add" {
				found = true
			}
		}
		return true
	})
	return found
}
