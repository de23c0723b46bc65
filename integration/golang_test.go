package integration

import (
	"fmt"
	"testing"
)

// goModule writes a module of a few packages that needs the standard library only.
func goModule(r *rig) {
	r.t.Helper()
	r.mkdir(r.path("module"))
	r.write(r.path("module/go.mod"), "module example.org/m\n\ngo 1.21\n")
	imports, calls := "", ""
	for i := range 20 {
		name := fmt.Sprintf("p%d", i)
		r.mkdir(r.path("module", name))
		r.write(r.path("module", name, "p.go"), fmt.Sprintf("package %s\n\nfunc N() int { return %d }\n", name, i))
		r.write(r.path("module", name, "p_test.go"), fmt.Sprintf(
			"package %s\n\nimport \"testing\"\n\nfunc TestN(t *testing.T) {\n\tif N() != %d {\n\t\tt.Fail()\n\t}\n}\n", name, i))
		imports += fmt.Sprintf("\t\"example.org/m/%s\"\n", name)
		calls += fmt.Sprintf(" + %s.N()", name)
	}
	r.write(r.path("module/main.go"), "package main\n\nimport (\n\t\"os\"\n"+imports+")\n\nfunc main() { println(len(os.Args)"+calls+") }\n")
}

// TestGo builds, runs and tests a module on the mount. The linker maps its output, and the objects of the module are there too.
func TestGo(t *testing.T) {
	need(t, "go")
	r := mounted(t)
	goModule(r)
	env := `export GOFLAGS=-mod=mod GOPROXY=off GOWORK=off GOTMPDIR="$CLEAR/tmp"; mkdir -p tmp; cd module; `
	r.sh(env + `go build -o ../bin/m . ; go vet ./...`)
	run := `out=$(bin/m 2>&1); test "$out" = 191 || { echo "says $out" >&2; exit 1; }`
	r.sh(run)
	r.sh(env + `go test ./p1 ./p2 ./p3`)
	r.sh(env + `sed -i 's/return 5/return 6/' p5/p.go; go build -o ../bin/m2 .; ! go test ./p5 > /dev/null; test "$(../bin/m2 2>&1)" = 192; go build -o ../bin/m .`)
	r.sh(`cmp bin/m bin/m2; sed -i 's/return 6/return 5/' module/p5/p.go; test -z "$(ls tmp)"`)

	r.remount()
	r.sh(env + `go build -o ../bin/m .`)
	r.sh(run)
}

// TestMake builds a program in C: make decides by times whether there is anything to do.
func TestMake(t *testing.T) {
	need(t, "make", "gcc")
	r := mounted(t)
	r.write(r.path("Makefile"), "all: m\nm: a.o b.o\n\tgcc -o $@ $^\n%.o: %.c\n\tgcc -c -o $@ $<\n")
	r.write(r.path("a.c"), "int b(void);\nint main(void) { return b(); }\n")
	r.write(r.path("b.c"), "int b(void) { return 42; }\n")
	r.sh(`make -s; code=0; ./m || code=$?; test $code = 42`)
	upToDate := `make -q`
	r.sh(upToDate)
	r.settle("m")
	r.sh(upToDate)
	r.remount()
	r.sh(upToDate + `; sed -i s/42/43/ b.c; make -s; code=0; ./m || code=$?; test $code = 43`)
}
