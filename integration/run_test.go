package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// patience bounds each program that a test runs.
const patience = 2 * time.Minute

// result is what became of a program.
type result struct {
	t              *testing.T
	line           string // the command line
	stdout, stderr string
	code           int
}

// run runs a program with variables in addition to the test's own.
func run(t *testing.T, env []string, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		t.Fatalf("%s: %v %v\n%s%s", strings.Join(args, " "), err, ctx.Err(), &stdout, &stderr)
	}
	return result{t: t, line: strings.Join(args, " "), stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// envfs runs the program under test.
func (r *rig) envfs(args ...string) result {
	r.t.Helper()
	return run(r.t, r.env, r.base, append([]string{"envfs"}, args...)...)
}

// ok fails the test unless the program has succeeded.
func (res result) ok() result {
	res.t.Helper()
	if res.code != 0 {
		res.t.Fatalf("%s: exit code %d\n%s%s", res.line, res.code, res.stdout, res.stderr)
	}
	return res
}

// fails demands an exit code of envfs, messages of its form, and that each pattern is found among them.
func (res result) fails(code int, patterns ...string) {
	res.t.Helper()
	if res.code != code {
		res.t.Errorf("%s: exit code %d, want %d\n%s", res.line, res.code, code, res.stderr)
	}
	if res.stdout != "" {
		res.t.Errorf("%s: fails, but says on standard output: %q", res.line, res.stdout)
	}
	for line := range strings.Lines(res.stderr) {
		if !strings.HasPrefix(line, "envfs: ") && !strings.HasPrefix(line, "hint: ") {
			res.t.Errorf("%s: a message of another form: %q", res.line, line)
		}
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(res.stderr) {
			res.t.Errorf("%s: no %q in the messages:\n%s", res.line, pattern, res.stderr)
		}
	}
}

// sh runs a script of the shell in the mount, which must succeed, and returns what it prints. The scripts find the paths
// of the rig in $BASE, $DATA and $CLEAR.
func (r *rig) sh(script string) string {
	r.t.Helper()
	return r.script(script).ok().stdout
}

func (r *rig) script(script string) result {
	r.t.Helper()
	env := []string{
		"BASE=" + r.base, "DATA=" + r.dir, "CLEAR=" + r.mnt, "LC_ALL=C.UTF-8",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
	}
	res := run(r.t, env, r.mnt, "bash", "-euo", "pipefail", "-c", script)
	res.line = script
	return res
}
