package main

import (
	"bufio"
	"context"
	"errors"

	"github.com/spf13/cobra"
)

const pathLong = `Translate paths of a volume between plaintext and ciphertext.

Paths are relative to the root of the volume, on both sides, and so is what is
printed, one line for each path. With --volume DIR, they need not exist (only
where a name of more than 175 bytes is decrypted, its directory is read).
Without --volume, paths are those of existing files, in a mount (encrypt, which
then needs no key) or in a ciphertext directory (decrypt).

Without PATH, paths are read from standard input, one a line; with -0 both input
and output are separated by NUL bytes. They are translated as they come. A path
that cannot be translated is reported on standard error and leaves no line in the
output; the others are done all the same, and the exit code is not 0.`

const pathExample = `  envfs path encrypt --volume /data docs/letter.txt
  envfs path encrypt /mnt/clear/docs/letter.txt
  rsync -an --out-format=%n /data/ backup: | envfs path decrypt --volume /data
  cd /data && find . -newer /tmp/stamp -print0 | envfs path decrypt -0 --volume .`

// pathCommand translates paths in one direction.
type pathCommand struct {
	app     *app
	keys    keySettings
	decrypt bool
	dir     string // of the volume; "" if the paths tell
	nul     bool
}

func newPath(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "path",
		Short:   "translate paths between plaintext and ciphertext",
		Long:    pathLong,
		Example: pathExample,
		Args:    unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef(cmd, "encrypt or decrypt is missing")
		},
	}
	encrypt := &pathCommand{app: a}
	decrypt := &pathCommand{app: a, decrypt: true}
	cmd.AddCommand(
		encrypt.command("encrypt", "print the ciphertext path of plaintext paths"),
		decrypt.command("decrypt", "print the plaintext path of ciphertext paths"))
	return cmd
}

func (p *pathCommand) command(name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:     name + " [flags] [PATH…]",
		Short:   short,
		Long:    pathLong,
		Example: pathExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.keys.check(cmd); err != nil {
				return err
			}
			if len(args) == 0 && p.keys.PassphraseFile == "-" {
				return usagef(cmd, "standard input cannot be both the passphrase and the paths")
			}
			return p.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVar(&p.dir, "volume", "", "ciphertext `DIR` of the volume")
	cmd.Flags().BoolVarP(&p.nul, "null", "0", false, "separate paths by NUL bytes instead of newlines")
	p.keys.addFlags(cmd.Flags())
	return cmd
}

// run translates the arguments, or what standard input lists.
func (p *pathCommand) run(ctx context.Context, args []string) error {
	t := &translator{pathCommand: p, out: bufio.NewWriter(p.app.stdout)}
	err := t.all(ctx, args)
	return errors.Join(err, t.close())
}
