package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Scripts run in a process of their own. A process that waits for its own mount while it maps files of it, changes its
// credentials, its umask or its working directory cannot serve that mount at the same time.
const (
	childEnv = "ENVFS_TEST_CHILD" // what the process is to do
	dirEnv   = "ENVFS_TEST_DIR"   // where
	argsEnv  = "ENVFS_TEST_ARGS"
)

func TestMain(m *testing.M) {
	task := os.Getenv(childEnv)
	if task == "" {
		os.Exit(m.Run())
	}
	if err := runChild(task); err != nil {
		fmt.Fprintln(os.Stderr, task+":", err)
		os.Exit(1)
	}
}

func runChild(task string) error {
	dir := os.Getenv(dirEnv)
	if group, ok := strings.CutPrefix(task, "play:"); ok {
		return play(os.Stdout, dir, scenarioGroups()[group], false)
	}
	if group, ok := strings.CutPrefix(task, "after:"); ok {
		return play(os.Stdout, dir, scenarioGroups()[group], true)
	}
	f, ok := helpers()[task]
	if !ok {
		return fmt.Errorf("no such task")
	}
	return f(dir, strings.Split(os.Getenv(argsEnv), "\x1f"))
}

// childTime is how long a process of a test may take before it counts as stuck.
const childTime = 90 * time.Second

// child is this program, told to do a task in dir.
func child(ctx context.Context, task, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+task, dirEnv+"="+dir, argsEnv+"="+strings.Join(args, "\x1f"),
		"GODEBUG=asyncpreemptoff=1") // signals of the runtime would end interruptible calls with EINTR
	cmd.WaitDelay = time.Second
	return cmd
}

// scenarioGroups are the tables of scenarios, by name.
func scenarioGroups() map[string][]scenario {
	return map[string][]scenario{
		"open": openScenarios(), "content": contentScenarios(), "resize": resizeScenarios(), "mmap": mmapScenarios(),
		"names": nameScenarios(), "rename": renameScenarios(), "nodes": nodeScenarios(), "directories": directoryScenarios(),
		"ten-thousand": {{name: "entries", run: directoryLarge, after: directoryLargeAgain}},
		"attributes":   attributeScenarios(), "xattrs": xattrScenarios(), "acls": aclScenarios(), "locks": lockScenarios(),
		"users": userScenarios(),
	}
}

// mountMode is a way to mount.
type mountMode struct {
	name string
	opts Options
}

// modesFor are the ways to mount in which a group of scenarios may behave differently.
func modesFor(group string) []mountMode {
	writeback := mountMode{"writeback", Options{AllowOther: true, Dev: true, Suid: true}}
	writethrough := mountMode{"writethrough", Options{AllowOther: true, Dev: true, Suid: true, WriteThrough: true}}
	private := mountMode{"private", Options{Dev: true, Suid: true}} // lets no other user in
	switch group {
	case "locks", "ten-thousand":
		return []mountMode{writeback}
	case "open", "nodes", "attributes", "xattrs":
		return []mountMode{writeback, writethrough, private}
	}
	return []mountMode{writeback, writethrough}
}

// TestLikeThePlainDirectory runs every scenario on a plain directory and on mounts of each kind: what it writes down must be
// the same.
func TestLikeThePlainDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the scenarios change owners and make device nodes")
	}
	for group := range scenarioGroups() {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			want := playOn(t, group, openTempDir(t), func() {})
			for _, mode := range modesFor(group) {
				t.Run(mode.name, func(t *testing.T) {
					r := newRig(t, mode.opts)
					got := playOn(t, group, r.dir, r.remount)
					diff(t, scenarioGroups()[group], got, want)
				})
			}
		})
	}
}

// playOn runs a group of scenarios on dir, then again what they have to say after everything has become cold.
func playOn(t *testing.T, group, dir string, cold func()) map[string][]string {
	t.Helper()
	lines := map[string][]string{}
	collect(t, lines, "play:"+group, dir)
	cold()
	collect(t, lines, "after:"+group, dir)
	return lines
}

func collect(t *testing.T, lines map[string][]string, task, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), childTime)
	defer cancel()
	cmd := child(ctx, task, dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	for line := range strings.SplitSeq(out.String(), "\n") {
		if name, text, ok := strings.Cut(line, "\t"); ok {
			lines[name] = append(lines[name], text)
		}
	}
	if err != nil {
		t.Errorf("%s on %s: %v\n%s", task, filepath.Base(dir), err, errs.String())
	}
}

// diff reports the first difference of each scenario.
func diff(t *testing.T, scenarios []scenario, got, want map[string][]string) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			w, g := want[sc.name], got[sc.name]
			if len(w) == 0 {
				t.Fatal("the plain directory shows nothing")
			}
			for i := range max(len(w), len(g)) {
				a, b := "(nothing more)", "(nothing more)"
				if i < len(w) {
					a = w[i]
				}
				if i < len(g) {
					b = g[i]
				}
				if a != b {
					t.Fatalf("line %d\n  plain: %s\n  mount: %s\nafter\n  %s", i+1, a, b,
						strings.Join(w[max(0, min(i, len(w))-8):min(i, len(w))], "\n  "))
				}
			}
		})
	}
}
