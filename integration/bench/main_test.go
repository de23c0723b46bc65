package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asProgram in the environment makes the test binary the program itself.
const asProgram = "ENVFS_BENCH_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch {
	case isWorker(os.Args[1:]):
		os.Exit(workerMain(os.Args[1:], os.Stderr))
	case os.Getenv(asProgram) != "":
		os.Exit(benchMain(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// lack skips a test that cannot be run here, or fails it where all must be there.
func lack(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ENVFS_TEST_STRICT") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// needMounts skips what must mount as root and drive programs.
func needMounts(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		lack(t, "no FUSE: "+err.Error())
	}
	_ = f.Close() // only opened
	if err := needRoot(); err != nil {
		lack(t, err.Error())
	}
	for _, program := range []string{"dd", "tar", "ls", "fusermount3"} {
		if _, err := exec.LookPath(program); err != nil {
			lack(t, err.Error())
		}
	}
}

// program is a built envfs, and folders to run the benchmark in.
type program struct {
	*testing.T
	envfs string
}

// bench runs the benchmark as a process and returns what it prints.
func (p program) bench(args ...string) string {
	p.Helper()
	cmd, tmp, base := p.command(args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	p.nothingLeft(tmp, base)
	return string(out)
}

// command prepares the benchmark as a process with folders of its own.
func (p program) command(args ...string) (cmd *exec.Cmd, tmp, base string) {
	p.Helper()
	tmp, base = p.TempDir(), filepath.Join(p.TempDir(), "base")
	at := 0 // flags come after the name of the benchmark
	if args[0] == "vault" {
		at = 1
	}
	cmd = exec.CommandContext(p.Context(), os.Args[0], slices.Insert(args, at, "-tiny", "-base", base)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "ENVFS="+p.envfs, "TMPDIR="+tmp)
	return cmd, tmp, base
}

// nothingLeft fails the test if a run has left anything behind.
func (p program) nothingLeft(tmp, base string) {
	p.Helper()
	if left := mountpointsBelow(tmp); len(left) > 0 {
		p.Errorf("left mounted: %q", left)
	}
	entries, err := os.ReadDir(tmp)
	if err != nil || len(entries) > 0 {
		p.Errorf("left in %s: %v, %v", tmp, entries, err)
	}
	if _, err := os.Stat(base); !os.IsNotExist(err) {
		p.Errorf("left: %s, %v", base, err)
	}
	for pid, args := range processesIn(p.T, tmp) {
		p.Errorf("left running: process %s, %q", pid, args)
	}
}

// processesIn finds the processes that name a path below a folder.
func processesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), dir+"/") {
			found[filepath.Base(filepath.Dir(file))] = string(line)
		}
	}
	return found
}

// TestBench runs all with next to no work, on the envfs that ENVFS names or
// else on one built for it.
func TestBench(t *testing.T) {
	needMounts(t)
	envfs := os.Getenv("ENVFS")
	if envfs == "" {
		envfs = filepath.Join(t.TempDir(), "envfs")
		if out, err := exec.Command("go", "build", "-o", envfs, "../../cmd/envfs").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for name, test := range map[string]func(program){"rows": testRows, "signal": testSignal, "vault": testVault} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(program{t, envfs})
		})
	}
}

// testRows checks that every row yields a number for every file system.
func testRows(p program) {
	file := filepath.Join(p.TempDir(), "figures.json")
	out := p.bench("-rounds", "1", "-json", file, "-rows", strings.Join(rowNames(), ","), "native", "envfs")
	_, noFio := exec.LookPath("fio")
	got := readFigures(p.T, file)
	for _, r := range allRows() {
		if noFio != nil && strings.HasPrefix(r.name, "rand_") {
			continue
		}
		for _, name := range []string{"native", "envfs"} {
			if values := got[r.String()][name]; len(values) != 1 || values[0] <= 0 {
				p.Errorf("%v, %s: %v, want one figure", r, name, values)
			}
		}
		if !strings.Contains(out, "\n"+r.String()+" ") {
			p.Errorf("%v is not in the table:\n%s", r, out)
		}
	}
	if !strings.Contains(out, "envfs ahead by") || !strings.Contains(out, "TINY") {
		p.Errorf("no ratios, or figures that look as if they meant something:\n%s", out)
	}
}

func readFigures(t *testing.T, file string) map[string]map[string][]float64 {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		All map[string]map[string][]float64
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	return got.All
}

// testSignal interrupts a run while the file system is mounted and in use.
func testSignal(p program) {
	cmd, tmp, base := p.command("-rounds", "1000", "-rows", "create_10k", "envfs")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	if err := until(p.Context(), "mounted", func() bool { return len(mountpointsBelow(tmp)) > 0 }); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.Fatalf("%v\n%s", err, &out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	_ = cmd.Wait() // its exit code tells
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "bench: interrupted") {
		p.Errorf("%v\n%s", cmd.ProcessState, &out)
	}
	p.nothingLeft(tmp, base)
}

// testVault checks that every row yields a time for each distance, and that
// requests are counted.
func testVault(p program) {
	if os.Getenv("ENVFS_TEST_VAULT") == "skip" {
		p.Skip("needs a Vault server, which ENVFS_TEST_VAULT=skip forbids")
	}
	file := filepath.Join(p.TempDir(), "figures.json")
	out := p.bench("vault", "-rounds", "1", "-rtt", "5ms", "-json", file)
	got := readFigures(p.T, file)
	for _, r := range vaultRows() {
		for _, column := range []string{localColumn, "5ms"} {
			if values := got[r.String()][column]; len(values) != 1 || values[0] <= 0 {
				p.Errorf("%v, %s: %v, want one time", r, column, values)
			}
		}
	}
	_, requests, _ := strings.Cut(out, "requests to Vault\n")
	for line := range strings.Lines(requests) {
		fields := strings.Fields(line)
		if len(fields) > 1 && fields[0] == "tree_read_cold" && fields[1] != "0.0" {
			return
		}
	}
	p.Errorf("reading files without keys makes no request:\n%s", out)
}

// TestUsage checks which command lines are refused, before anything is done.
func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		says string
	}{
		{"-h", 0, "usage: bench "},
		{"vault -h", 0, "usage: bench vault "},
		{"", 2, "no file system is named"},
		{"native ext9", 2, `"ext9" is none of the file systems`},
		{"-rows untar,nonsense native", 2, `"nonsense" is none of the rows`},
		{"-rounds 0 native", 2, "at least 1"},
		{"-size 0 native", 2, "at least 1"},
		{"-nonsense native", 2, "-nonsense"},
		{"vault native", 2, "no operands"},
		{"vault -rtt 10", 2, `"10" is no round trip`},
		{"vault -rtt 1ms,1ms", 2, `"1ms" is no round trip`},
		{"vault -rtt -1ms", 2, `"-1ms" is no round trip`},
	} {
		var out, says strings.Builder
		code := benchMain(strings.Fields(test.args), &out, &says)
		if code != test.code || !strings.Contains(says.String(), test.says) || out.Len() > 0 {
			t.Errorf("bench %s: exit code %d, want %d and %q\n%s%s", test.args, code, test.code, test.says, &out, &says)
		}
	}
}

// TestRunnerKillsAll ends a run in which a program has started another.
func TestRunnerKillsAll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := filepath.Join(t.TempDir(), "ready")
	failed := make(chan error, 1)
	go func() {
		_, err := (&runner{ctx: ctx}).shell(`sleep 1000 & echo $! > "$1"; wait`, ready)
		failed <- err
	}()
	var child []byte
	if err := until(t.Context(), "started", func() bool {
		child, _ = os.ReadFile(ready)
		return strings.HasSuffix(string(child), "\n")
	}); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("an interrupted program has succeeded")
		}
	case <-time.After(patience):
		t.Fatal("an interrupted program goes on")
	}
	if err := until(t.Context(), "ended", func() bool {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(child)) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}); err != nil {
		t.Errorf("what it has started: %v", err)
	}
}
