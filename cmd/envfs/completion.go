package main

import "github.com/spf13/cobra"

const completionLong = `Print a script that makes the shell complete commands, flags and their values.
That for bash needs the package bash-completion.`

const completionExample = `  envfs completion bash > /etc/bash_completion.d/envfs
  envfs completion zsh > "${fpath[1]}/_envfs"
  envfs completion fish > ~/.config/fish/completions/envfs.fish`

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "print a completion script for a shell",
		Long:      completionLong,
		Example:   completionExample,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      operands("the name of the shell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			}
			return usagef(cmd, "no completion for %q: only for bash, zsh and fish", args[0])
		},
	}
}
