package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/volume"
)

const catLong = `Write the plaintext of one file to standard output, without a mount. FILE is a
ciphertext file, in a ciphertext directory or in a backup of one. The envfs.json
that it needs is looked for above it, or is what --volume names: a directory that
holds one, or a copy of the file.

At a block that cannot be read the output ends, and the exit code is 5. With
--salvage such blocks are zeros in the output and are listed on standard error;
the exit code is 5 all the same.

The volume must not be mounted, except for reading (-o ro).`

const catExample = `  envfs cat /backup/data/0pQ…/7Xk…
  envfs cat --volume /safe/envfs.json Zk3… | less`

type catCommand struct {
	app     *app
	keys    keySettings
	config  string
	salvage bool
}

func newCat(a *app) *cobra.Command {
	c := &catCommand{app: a}
	cmd := &cobra.Command{
		Use:     "cat [flags] FILE",
		Short:   "write the plaintext of one file to standard output",
		Long:    catLong,
		Example: catExample,
		Args:    operands("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.keys.check(cmd); err != nil {
				return err
			}
			return c.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVar(&c.config, "volume", "", "`DIR` that holds envfs.json, or a copy of that file (default: above FILE)")
	cmd.Flags().BoolVar(&c.salvage, "salvage", false, "write zeros for blocks that cannot be read, and list them")
	c.keys.addPinFlags(cmd.Flags())
	c.keys.addFlags(cmd.Flags())
	return cmd
}

func (c *catCommand) run(ctx context.Context, file string) error {
	o, err := findCiphertext(file, c.config)
	if err != nil {
		return err
	}
	return o.use(ctx, c.app, c.keys, func(v *volume.Volume) error {
		o.warnOfJournal(c.app)
		lost, err := v.Cat(ctx, o.rel, c.salvage, c.app.stdout)
		if len(lost.Ranges) == 0 {
			return aboutNamed(o.dir, err)
		}
		f := newLostFile(filepath.Join(o.dir, o.rel), lost)
		for _, line := range f.lines() {
			fmt.Fprintln(c.app.stderr, line)
		}
		return errors.Join(aboutNamed(o.dir, err), lostError(f.Path, []lostFile{f}))
	})
}
