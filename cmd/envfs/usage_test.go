package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// shown returns the commands that a user sees.
func shown(root *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, cmd := range root.Commands() {
		if !cmd.Hidden && cmd.Name() != "help" {
			all = append(append(all, cmd), shown(cmd)...)
		}
	}
	return all
}

func TestHelpIsComplete(t *testing.T) {
	commands := shown(newRoot(newApp()))
	if len(commands) < 10 {
		t.Fatalf("only %d commands", len(commands))
	}
	for _, cmd := range append(commands, newMountHelper(newApp())) {
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks a text", cmd.CommandPath())
		}
		if !strings.Contains(cmd.UsageString(), exitCodeTable) {
			t.Errorf("%s does not list the exit codes", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 81 {
				t.Errorf("%s: a line of %d columns: %q", cmd.CommandPath(), n, line)
			}
		}
	}
}

// Each example is a command line that would be accepted.
func TestExamplesParse(t *testing.T) {
	seen := 0
	for _, documented := range shown(newRoot(newApp())) {
		for line := range strings.Lines(documented.Example) {
			for part := range strings.SplitSeq(line, "|") {
				_, command, found := strings.Cut(" "+part, " envfs ")
				if !found {
					continue
				}
				seen++
				parseExample(t, documented, command)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d examples", seen)
	}
}

func parseExample(t *testing.T, documented *cobra.Command, command string) {
	t.Helper()
	command, _, _ = strings.Cut(command, ">") // redirections
	root := newRoot(newApp())
	cmd, rest, err := root.Find(strings.Fields(command))
	if err != nil {
		t.Errorf("%s: %q: %v", documented.CommandPath(), command, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%s: %q: %v", documented.CommandPath(), command, err)
		return
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("%s: %q: %v", documented.CommandPath(), command, err)
	}
}

func TestOperands(t *testing.T) {
	check := operands("DIR", "MOUNTPOINT")
	cmd := &cobra.Command{Use: "mount"}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "DIR is missing"},
		{[]string{"a"}, "MOUNTPOINT is missing"},
		{[]string{"a", "b"}, ""},
		{[]string{"a", "b", "c"}, `one argument too many: "c"`},
	} {
		err := check(cmd, test.args)
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%q gives %v, want %q", test.args, err, test.want)
		}
	}
}

func TestChoice(t *testing.T) {
	var value string
	c := newChoice(&value, "b", "a", "b")
	if c.String() != "b" || c.Set("a") != nil || value != "a" {
		t.Errorf("value is %q", value)
	}
	if err := c.Set("c"); err == nil || err.Error() != "must be one of a|b" || value != "a" {
		t.Errorf("a wrong word gives %v, and the value %q", err, value)
	}
	if (&choice{}).String() != "" {
		t.Error("a zero choice is not empty")
	}
}
