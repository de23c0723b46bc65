package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestInstall installs as a packager does, into a directory of its own, and looks whether the pieces find each other there.
func TestInstall(t *testing.T) {
	need(t, "make", "bash")
	t.Parallel()
	dest, bin := t.TempDir(), t.TempDir()
	run(t, nil, "..", "make", "install", "DESTDIR="+dest, "PREFIX=/opt/envfs", "BIN="+bin).ok()
	installed := func(path string) string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dest, path))
		if err != nil {
			t.Error(err)
		}
		return string(content)
	}

	// The program, and the helper of mount(8), which is the same.
	program := filepath.Join(dest, "opt/envfs/bin/envfs")
	if out := run(t, nil, dest, program, "version").ok().stdout; !strings.HasPrefix(out, "envfs ") {
		t.Errorf("the installed program says %q", out)
	}
	if to, err := os.Readlink(filepath.Join(dest, "sbin/mount.envfs")); err != nil || to != "/opt/envfs/bin/envfs" {
		t.Errorf("mount.envfs leads to %q, %v", to, err)
	}

	// A manual page for each command that the help lists.
	help := run(t, nil, dest, program, "help").ok().stdout
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(list, -1)
	if len(commands) < 10 {
		t.Fatalf("commands in the help: %q", commands)
	}
	for _, command := range commands {
		if command[1] == "help" {
			continue
		}
		if page := installed("opt/envfs/share/man/man8/envfs-" + command[1] + ".8"); !strings.Contains(page, ".SH SYNOPSIS") {
			t.Errorf("the manual page of %s begins %.80q", command[1], page)
		}
	}

	// The unit starts what was installed and names pages that were.
	unit := installed("opt/envfs/lib/systemd/system/envfs@.service")
	starts := regexp.MustCompile(`(?m)^Exec\w+=(\S+)`).FindAllStringSubmatch(unit, -1)
	if len(starts) != 2 || slices.ContainsFunc(starts, func(s []string) bool { return s[1] != "/opt/envfs/bin/envfs" }) {
		t.Errorf("the unit starts %q", starts)
	}
	for _, page := range regexp.MustCompile(`man:([a-z-]+)\((\d)\)`).FindAllStringSubmatch(unit, -1) {
		installed("opt/envfs/share/man/man" + page[2] + "/" + page[1] + "." + page[2])
	}

	// Completions that their shells can read.
	run(t, nil, dest, "bash", "-n", "opt/envfs/share/bash-completion/completions/envfs").ok()
	for _, script := range []string{"zsh/site-functions/_envfs", "fish/vendor_completions.d/envfs.fish"} {
		if text := installed("opt/envfs/share/" + script); !strings.Contains(text, "envfs") {
			t.Errorf("%s: %.80q", script, text)
		}
	}
}
