package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// usageError is a command line that cannot be carried out.
type usageError struct {
	command string // "envfs mount", whose help explains more
	reason  string
}

func (e *usageError) Error() string { return e.reason }

// usagef makes an error of a command line.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), reason: fmt.Sprintf(format, args...)}
}

// setUp gives a command and all below it the same behaviour: wrong flags and
// wrong numbers of arguments are usage errors, and each help text ends with
// the exit codes.
func setUp(root *cobra.Command) {
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usagef(c, "%v", err) })
	root.SetUsageTemplate(root.UsageTemplate() + "\n" + exitCodeTable)
	root.InitDefaultHelpCmd()
	setUpFlags(root)
}

func setUpFlags(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.DisableFlagsInUseLine = true
	if cmd.Name() == "help" {
		cmd.Short = "explain a command"
	}
	for _, sub := range cmd.Commands() {
		setUpFlags(sub)
	}
}

// operands checks the number of arguments, and names them in the error.
func operands(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef(cmd, "one argument too many: %q", args[len(names)])
		}
		return nil
	}
}

// choice is the value of a flag that is one of a few words.
type choice struct {
	value *string
	words []string
}

func newChoice(value *string, initial string, words ...string) *choice {
	*value = initial
	return &choice{value: value, words: words}
}

func (c *choice) String() string {
	if c.value == nil { // pflag asks a zero choice
		return ""
	}
	return *c.value
}

func (c *choice) Set(s string) error {
	for _, word := range c.words {
		if s == word {
			*c.value = s
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", c.Type())
}

func (c *choice) Type() string {
	var text string
	for i, word := range c.words {
		if i > 0 {
			text += "|"
		}
		text += word
	}
	return text
}
