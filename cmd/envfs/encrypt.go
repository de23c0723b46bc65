package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/volume"
)

const encryptLong = `Encrypt a file or a tree into a volume without a mount. SRC is plaintext. DST is
a plaintext path in the volume: below DIR with --volume DIR, or else a path whose
beginning is the ciphertext directory, such as /data/docs/new for docs/new in the
volume /data.

What SRC names becomes DST. A directory is merged with DST if that is there; a
file goes into a directory DST. The directory above DST must be there. A symbolic
link SRC is copied, not followed. What is kept, what happens with entries that
are there, and when a file gets its name is as with envfs decrypt. A file that
changes while it is read is reported as failed.

The volume must not be mounted: into a mount, copy with cp -a. Each file gets a
key of its own.`

const encryptExample = `  envfs encrypt --volume /data ~/documents docs
  envfs encrypt letter.txt /data/docs/
  envfs encrypt --transit-key docs --json /srv/plain /data`

type encryptCommand struct {
	app    *app
	keys   keySettings
	dir    string
	force  bool
	asJSON bool
}

func newEncrypt(a *app) *cobra.Command {
	e := &encryptCommand{app: a}
	cmd := &cobra.Command{
		Use:     "encrypt [flags] SRC DST",
		Short:   "encrypt a file or a tree without a mount",
		Long:    encryptLong,
		Example: encryptExample,
		Args:    operands("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := e.keys.check(cmd); err != nil {
				return err
			}
			return e.run(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&e.dir, "volume", "", "ciphertext `DIR` of the volume (default: above DST)")
	cmd.Flags().BoolVar(&e.force, "force", false, "replace files that are there")
	cmd.Flags().BoolVar(&e.asJSON, "json", false, "print JSON")
	e.keys.addPinFlags(cmd.Flags())
	e.keys.addFlags(cmd.Flags())
	return cmd
}

func (e *encryptCommand) run(ctx context.Context, src, dst string) error {
	o, err := findPlaintext(dst, e.dir)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return o.use(ctx, e.app, e.keys, func(v *volume.Volume) error {
		o.warnOfJournal(e.app)
		return e.encrypt(ctx, o, v, transferReport{Volume: o.dir, Source: src, Destination: o.rel, Lost: []lostFile{}})
	})
}

func (e *encryptCommand) encrypt(ctx context.Context, o *offlineVolume, v *volume.Volume, report transferReport) error {
	meter := progress.New(e.app.stderr, progress.Options{Verb: "encrypted", Bytes: true, Number: number})
	failures := &failureList{meter: meter}
	count, err := v.Import(ctx, volume.ImportOptions{
		TransferOptions: transferOptions(e.force, failures, meter), Source: report.Source, Target: o.rel,
	})
	meter.Close()
	report.TransferCount, report.Failures = count, failures.list()
	if err != nil {
		err = aboutNamed(o.dir, err)
	} else {
		err = failures.err(report.Source, count.Files+count.Failed)
	}
	return errors.Join(report.print(e.app, e.asJSON, "encrypted"), err)
}
