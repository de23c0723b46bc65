package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

const verifyLong = `Verify a volume, or parts of it: every header, block, name, link target and
extended attribute is read and authenticated. DIR is its ciphertext directory, or
where it is mounted. PATH are files and directories in either, or, if there is no
such file here, plaintext paths below the root of the volume; without any, all of
the volume is verified.

Nothing is changed, and no lock is taken: a mount may go on, begin or end
meanwhile. A fault counts when two looks at a file find it, between which the
file has not changed; a file that never stays as it is for long enough is
reported as unchecked. What a mount has not written to the disk yet is not seen.

Findings go to standard error as they come, with ciphertext path, plaintext path,
file ID, block and reason. They are
  damage     something cannot be read as it was written
  unchecked  it could not be found out: no permission, a key that is refused
  notice     nothing is lost: unsealed files, leftovers of crashes, foreign files
The exit code is 5 if there is damage, else 1, 3 or 4 if something is unchecked.

With --quick, blocks are left out: headers and sizes of files are verified. With
--json, standard output is one object with counts, "findings", and "moved".

With --repair, which needs the volume for itself, files that are whole but
unsealed are sealed, and what cannot be read (a file with a damaged header, size
or block, a link, anything whose name is damaged) is moved, under its ciphertext
path, to a quarantine outside of DIR, on the same file system. The full name of
something that is gone is moved there, too. Nothing is deleted or replaced, and
nothing else is changed. A damaged attribute stays, and so does a file whose
long name is lost: it is shown under its stored name.`

const verifyExample = `  envfs verify /data
  envfs verify --quick --json /mnt/clear
  envfs verify /data docs/letter.txt /data/Zk3…
  envfs verify --repair --quarantine /data.bad /data`

var (
	errVerified   = error(classedError{"damage found", errDamageFound})
	errUnchecked  = errors.New("not everything could be checked")
	errNoSuchFile = errors.New("no such file, neither here nor in the volume")
)

type verifyCommand struct {
	app        *app
	keys       keySettings
	quick      bool
	repair     bool
	quarantine string
	asJSON     bool
}

func newVerify(a *app) *cobra.Command {
	c := &verifyCommand{app: a}
	cmd := &cobra.Command{
		Use:     "verify [flags] DIR [PATH…]",
		Short:   "find damage, and what crashes have left",
		Long:    verifyLong,
		Example: verifyExample,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return usagef(cmd, "DIR is missing")
			case c.quick && c.repair:
				return usagef(cmd, "--quick and --repair exclude each other: only a file that was read whole can be sealed")
			case c.quarantine != "" && !c.repair:
				return usagef(cmd, "--quarantine needs --repair")
			}
			if err := c.keys.check(cmd); err != nil {
				return err
			}
			return c.run(cmd.Context(), args[0], args[1:])
		},
	}
	cmd.Flags().BoolVar(&c.quick, "quick", false, "verify headers and sizes of files, but not their blocks")
	cmd.Flags().BoolVar(&c.repair, "repair", false, "seal unsealed files, and move away what cannot be read")
	cmd.Flags().StringVar(&c.quarantine, "quarantine", "", "move it to `DIR` (default: beside the volume, with .quarantine at its end)")
	cmd.Flags().BoolVar(&c.asJSON, "json", false, "print JSON")
	c.keys.addFlags(cmd.Flags())
	return cmd
}

func (c *verifyCommand) run(ctx context.Context, path string, args []string) error {
	p, err := locate(path)
	if err != nil {
		return err
	}
	if p.rel != "." {
		return about(path, errNotWholeVolume)
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	v, closeKeys, err := c.open(ctx, path, p.volume)
	if err != nil {
		return err
	}
	defer closeKeys()
	err = c.verify(ctx, v, p.volume, args)
	if closeErr := v.Close(); err == nil {
		err = closeErr
	}
	return err
}

// open opens the volume: for a repair alone, else beside whoever has it. Keys are wiped as soon as their file is done.
func (c *verifyCommand) open(ctx context.Context, path, dir string) (_ *volume.Volume, closeKeys func(), err error) {
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		return nil, nil, aboutNamed(dir, err)
	}
	log := c.app.log()
	c.app.protect(log)
	opener := keyringOpener{keySettings: c.keys, arena: secret.NewArena(log)}
	passphrase, err := c.keys.passphrase(ctx, c.app, path, cfg)
	if err != nil {
		return nil, nil, err
	}
	kr, err := opener.open(ctx, cfg, passphrase)
	if err != nil {
		return nil, nil, about(path, err)
	}
	v, err := volume.Open(ctx, dir, cfg, kr, volume.OpenOptions{
		Arena: opener.arena, Log: log, ReadOnly: !c.repair, Unlocked: !c.repair, Cache: keyring.CacheOptions{Size: 1},
	})
	if err != nil {
		kr.Close()
		return nil, nil, aboutNamed(dir, err)
	}
	return v, kr.Close, nil
}

func (c *verifyCommand) verify(ctx context.Context, v *volume.Volume, dir string, args []string) error {
	paths, err := verifyPaths(v, dir, args)
	if err != nil {
		return err
	}
	meter := progress.New(c.app.stderr, progress.Options{Verb: "verified", Bytes: true, Number: number})
	found := &findingList{meter: meter, report: verifyReport{
		Volume: dir, Quick: c.quick, Repair: c.repair, Findings: []verifyFinding{}, Moved: []verifyMove{},
	}}
	o := volume.VerifyOptions{
		Paths: paths, Quick: c.quick, Repair: c.repair, Quarantine: c.quarantine, Found: found.add, Moved: found.moved,
		Progress: func(p volume.VerifyProgress) { meter.Update(p.Done, p.Total, p.Known) },
	}
	if o.Quarantine == "" {
		o.Quarantine = dir + ".quarantine"
	}
	count, err := v.Verify(ctx, o)
	meter.Close()
	found.report.VerifyCount = count
	if c.asJSON {
		err = errors.Join(err, writeJSON(c.app, found.report))
	} else {
		_, printErr := fmt.Fprintln(c.app.stdout, found.report)
		err = errors.Join(err, printErr)
	}
	return errors.Join(found.err(), aboutNamed(dir, err))
}

// verifyPaths returns paths relative to the ciphertext directory. One that leads nowhere from here is a plaintext path below
// the root of the volume.
func verifyPaths(v *volume.Volume, dir string, args []string) ([]string, error) {
	if len(args) == 0 {
		return []string{"."}, nil
	}
	var paths []string
	for _, arg := range args {
		p, err := locate(arg)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !filepath.IsAbs(arg):
			if p.rel, err = v.EncryptPath(arg); err == nil {
				_, err = os.Lstat(filepath.Join(dir, p.rel))
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = errNoSuchFile
			}
			if err != nil {
				return nil, about(arg, err)
			}
		case err != nil:
			return nil, err
		case p.volume != dir:
			return nil, about(arg, fmt.Errorf("%w at %s", errOutside, dir))
		}
		paths = append(paths, p.rel)
	}
	return paths, nil
}
