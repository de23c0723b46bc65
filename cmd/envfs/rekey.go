package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/volume"
)

const rekeyLong = `Give files of a volume new keys, and encrypt their contents anew. PATH are files
and directories in the ciphertext directory DIR; DIR itself stands for all of it
(envfs path encrypt translates plaintext paths). The volume must not be mounted.

Each file is copied to a temporary file beside it, which then takes its place
at once. Hard links, extended attributes, ACLs, owner, mode, times and holes
stay; the inode number changes. All names of a file with hard links must be
among PATH. A file that some process has open is refused. The command may be
stopped or killed at any instant: each name leads to the old file or the new
one, and the next run removes what is left of temporary files.

Copies and snapshots of the old ciphertext still open with the old keys: rekeying
helps once those are gone. To move files to a new version of the key that wraps
their keys, envfs rewrap is enough, and much faster.

With --resume FILE, files that are done are noted in FILE by their new IDs, and a
later run with the same FILE leaves them out. Without it, all files are done.

With --audit-log, each file is recorded with its plaintext path, its old and its
new ID. SIGHUP makes the command open that file anew.`

const rekeyExample = `  envfs rekey --volume /data /data/Zk3…
  envfs rekey --volume /data --resume rekey.journal /data`

var errInMount = errors.New("is in a mount, and a mounted volume cannot be rekeyed")

// rekeyReport is what envfs rekey says. Programs may read it.
type rekeyReport struct {
	Volume string `json:"volume"`
	volume.RekeyCount
	Failures []fileFailure `json:"failures"`
}

type rekeyCommand struct {
	app     *app
	keys    keySettings
	audit   auditSettings
	dir     string
	journal string
	asJSON  bool
}

func newRekey(a *app) *cobra.Command {
	r := &rekeyCommand{app: a}
	cmd := &cobra.Command{
		Use:     "rekey [flags] --volume DIR PATH…",
		Short:   "give files new keys, and encrypt them anew",
		Long:    rekeyLong,
		Example: rekeyExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.dir == "" {
				return usagef(cmd, "--volume is missing")
			}
			if len(args) == 0 {
				return usagef(cmd, "PATH is missing")
			}
			if err := errors.Join(r.keys.check(cmd), r.audit.check(cmd)); err != nil {
				return err
			}
			return r.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVar(&r.dir, "volume", "", "ciphertext `DIR` of the volume")
	cmd.Flags().StringVar(&r.journal, "resume", "", "note what is done in `FILE`, and leave out what is noted there")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "print JSON")
	r.keys.addFlags(cmd.Flags())
	r.audit.addFlags(cmd.Flags())
	return cmd
}

func (r *rekeyCommand) run(ctx context.Context, args []string) error {
	dir, err := resolve(r.dir)
	if err != nil {
		return err
	}
	paths, err := pathsIn(dir, args)
	if err != nil {
		return err
	}
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		return aboutNamed(dir, err)
	}
	records, err := openKeyLog(r.app, r.audit, "rekey", dir)
	if err != nil {
		return err
	}
	o := &offlineVolume{dir: dir, cfg: cfg}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return records.done(o.use(ctx, r.app, r.keys, func(v *volume.Volume) error {
		records.plain = func(stored string) (string, bool) {
			plain, err := v.DecryptPath(stored)
			return plain, err == nil
		}
		return r.rekey(ctx, dir, v, volume.RekeyOptions{Paths: paths, Audit: records})
	}))
}

// pathsIn returns paths relative to the ciphertext directory.
func pathsIn(dir string, args []string) ([]string, error) {
	var paths []string
	for _, arg := range args {
		p, err := locate(arg)
		if err != nil {
			return nil, err
		}
		if p.plaintext != "" {
			return nil, about(arg, errInMount)
		}
		if p.volume != dir {
			return nil, about(arg, fmt.Errorf("%w at %s", errOutside, dir))
		}
		paths = append(paths, p.rel)
	}
	return paths, nil
}

func (r *rekeyCommand) rekey(ctx context.Context, dir string, v *volume.Volume, o volume.RekeyOptions) (err error) {
	if r.journal != "" {
		if o.Journal, err = v.OpenRekeyJournal(r.journal); err != nil {
			return err
		}
	}
	meter := progress.New(r.app.stderr, progress.Options{Verb: "rekeyed", Bytes: true, Number: number})
	failures := &failureList{meter: meter, dir: dir}
	o.Failed = failures.add
	o.Progress = func(c volume.RekeyCount) { meter.Update(c.Done, c.Bytes, true) }
	count, err := v.Rekey(ctx, o)
	meter.Close()
	err = errors.Join(err, o.Journal.Close(), r.print(rekeyReport{Volume: dir, RekeyCount: count, Failures: failures.list()}))
	if err != nil {
		return aboutNamed(dir, err)
	}
	return failures.err(dir, count.Files)
}

func (r *rekeyCommand) print(report rekeyReport) error {
	if r.asJSON {
		return writeJSON(r.app, report)
	}
	text := "rekeyed " + countFiles(report.Rekeyed)
	if report.Skipped > 0 {
		text += fmt.Sprintf(", %s were done before", number(report.Skipped))
	}
	if report.Failed > 0 {
		text += fmt.Sprintf(", %s failed", number(report.Failed))
	}
	if left := report.Files - report.Rekeyed - report.Skipped - report.Failed; left > 0 {
		text += fmt.Sprintf(", %s are left", number(left))
	}
	_, err := fmt.Fprintln(r.app.stdout, text)
	return err
}
