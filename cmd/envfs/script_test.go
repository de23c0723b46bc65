package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
)

func TestMain(m *testing.M) {
	// A program built with -race sleeps a second before it exits, to see late races. The tests run it hundreds of times.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=20"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"envfs": main, "mount.envfs": main})
}

// TestScripts runs testdata/script: each command on real mounts, with its
// output and exit code. Beside the commands of testscript there are
//
//	code N PROGRAM ARG…        run a program, which must exit with N
//	until PROGRAM ARG…         run a program again and again until it succeeds
//	held PATH                  wait until a process holds something in a mount
//	replace FILE OLD NEW       change text in a file
//	forge FILE OLD NEW         change text in envfs.json and make its checksum fit
//	[root] [fuse] [unshare]    conditions
//
// and the files pass and wrong, which hold passphrases.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Defer(func() { unmountBelow(t, env.WorkDir) })
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("GORACE", os.Getenv("GORACE"))
			for name, text := range map[string]string{"pass": "correct horse\n", "wrong": "battery staple\n"} {
				if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o700)
		},
		Condition:           condition,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": wantCode, "until": until, "held": held, "replace": replace, "forge": forge,
		},
	})
}

// unmountBelow clears away what a script that failed has left mounted.
func unmountBelow(t *testing.T, dir string) {
	table, err := mounts.Read()
	if err != nil {
		t.Error(err)
	}
	for _, m := range table {
		if !strings.HasPrefix(m.Point, dir+"/") {
			continue
		}
		t.Logf("left mounted: %s", m.Point)
		if err := mounts.Unmount(m.Point, true); err != nil {
			t.Error(err)
		}
	}
}

func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "fuse":
		f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		if err != nil {
			return false, nil
		}
		return true, f.Close()
	case "unshare":
		return exec.Command("unshare", "-m", "true").Run() == nil, nil
	}
	return false, errors.New("unknown condition " + name)
}

func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG…")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until PROGRAM ARG…")
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ts.Exec(args[0], args[1:]...) == nil {
			return
		}
	}
	ts.Fatalf("never succeeded: %s", strings.Join(args, " "))
}

func held(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: held PATH")
	}
	path := ts.MkAbs(args[0])
	table, err := mounts.Read()
	ts.Check(err)
	m, _ := table.Containing(path)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		holders, _, err := mounts.Holders(m.Device)
		ts.Check(err)
		for _, h := range holders {
			if h.Path == path {
				return
			}
		}
	}
	ts.Fatalf("nobody holds %s on %+v", path, m)
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	file := ts.MkAbs(args[0])
	text := []byte(ts.ReadFile(args[0]))
	if bytes.Count(text, []byte(args[1])) != 1 {
		ts.Fatalf("%s does not hold %q exactly once", args[0], args[1])
	}
	text = bytes.Replace(text, []byte(args[1]), []byte(args[2]), 1)
	ts.Check(os.WriteFile(file, text, 0o600))
}

func forge(ts *testscript.TestScript, neg bool, args []string) {
	replace(ts, neg, args)
	var compact bytes.Buffer
	ts.Check(json.Compact(&compact, []byte(ts.ReadFile(args[0]))))
	body, checksum, found := bytes.Cut(compact.Bytes(), []byte(`,"checksum":"`))
	if !found {
		ts.Fatalf("%s has no checksum", args[0])
	}
	sum := sha256.Sum256(append(bytes.Clone(body), '}'))
	replace(ts, neg, []string{args[0], string(checksum[:2*sha256.Size]), hex.EncodeToString(sum[:])})
}
