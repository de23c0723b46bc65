package integration

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources lists the files of the tree, as a clone has them.
func sources(t *testing.T) []string {
	t.Helper()
	need(t, "git")
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("no git repository: %v", err)
	}
	var files []string
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if st, err := os.Lstat(filepath.Join("..", name)); err == nil && st.Mode().IsRegular() {
			files = append(files, name)
		}
	}
	if len(files) < 50 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

// TestNoLocalPaths: no file names a place that only the machine of whoever wrote it has. Passphrase files of examples may
// be in root's home.
func TestNoLocalPaths(t *testing.T) {
	places := regexp.MustCompile(`(?:^|[^\w.$}{)*/-])(/(?:work|root|home/\w+|Users/\w+)/[^\s"'` + "`" + `,;)]*)`)
	examples := regexp.MustCompile(`^/(?:root)/[\w-]+\.pass$`)
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources(t) {
		content, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(here+"/")) {
			t.Errorf("%s names the directory of this checkout", name)
		}
		for _, found := range places.FindAllSubmatch(content, -1) {
			if path := bytes.TrimRight(found[1], "."); !examples.Match(path) {
				t.Errorf("%s names %s", name, path)
			}
		}
	}
}

// TestFuzzSeeds: each fuzz target has inputs to start from: in a folder of its own name, or added by itself.
func TestFuzzSeeds(t *testing.T) {
	targets := 0
	for _, name := range sources(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			targets++
			folder := filepath.Join("..", filepath.Dir(name), "testdata/fuzz", f.Name.Name)
			if seeds, err := os.ReadDir(folder); (err != nil || len(seeds) == 0) && !addsSeeds(f) {
				t.Errorf("%s in %s has no seeds: neither in %s nor by Add", f.Name.Name, name, folder)
			}
		}
	}
	if targets == 0 {
		t.Error("no fuzz target found")
	}
}

// addsSeeds tells whether a fuzz target calls Add of its argument.
func addsSeeds(target *ast.FuncDecl) (found bool) {
	argument := target.Type.Params.List[0].Names[0].Name
	ast.Inspect(target.Body, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "Add" {
				on, ok := method.X.(*ast.Ident)
				found = found || ok && on.Name == argument
			}
		}
		return !found
	})
	return found
}
