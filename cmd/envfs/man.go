package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is the command by which the build makes the manual pages, from the
// same texts as the help.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write manual pages into a directory",
		Hidden: true,
		Args:   operands("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return writeManPages(cmd.Root(), args[0])
		},
	}
}

func writeManPages(root *cobra.Command, dir string) error {
	for _, cmd := range append(root.Commands(), root) {
		cmd.DisableAutoGenTag = true // the same source gives the same page
		cmd.Long = markdown(cmd.Long) + "\n" + markdown(exitCodeTable)
	}
	header := &doc.GenManHeader{Title: "ENVFS", Section: "8", Source: "envfs", Manual: "System Administration"}
	return doc.GenManTree(root, header, dir)
}

// markdown turns a help text into what the generator of manual pages reads:
// indented lines become blocks that keep their columns, and the rest is freed
// of what Markdown would take for its own.
func markdown(text string) string {
	escape := strings.NewReplacer("*", `\*`, "_", `\_`, "<", `\<`, "$", `\$`)
	var out strings.Builder
	inBlock := false
	for line := range strings.Lines(text) {
		isBlock := strings.HasPrefix(line, "  ")
		if isBlock != inBlock {
			out.WriteString("\n")
		}
		inBlock = isBlock
		if isBlock {
			out.WriteString("  " + line) // four spaces make a block
		} else {
			out.WriteString(escape.Replace(line))
		}
	}
	if !strings.HasSuffix(text, "\n") {
		out.WriteString("\n")
	}
	return out.String()
}
