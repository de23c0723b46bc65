package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/volume"
)

const decryptLong = `Decrypt a file or a tree without a mount. SRC is ciphertext: a ciphertext
directory, or a file or directory in one or in a backup of one. The envfs.json
that it needs is looked for in SRC and above it, or is what --volume names: a
directory that holds one, or a copy of the file.

What SRC names becomes DST. A directory is merged with DST if that is there; a
file goes into a directory DST, under its plaintext name. Contents, names,
symbolic links, modes, owners, times, hard links, extended attributes, ACLs,
device nodes and holes are as they were; owners only as root. SELinux labels are
not copied. Names of the ciphertext come from envfs path encrypt.

Nothing that is there is overwritten, but reported as failed, unless --force is
given; then files are replaced, and directories that are there get the attributes
of the source. Symbolic links below DST are never followed, nor written through;
DST itself may be one to a directory. A file gets its name when it is complete
and on the disk: whatever ends the command, it leaves no half file. When it is
killed, temporary ones called .envfs-*.tmp may be left.

A file with a block that cannot be read is not written; it is reported, the
others are done, and the exit code is 5. With --salvage such blocks become zeros
and are listed; the exit code is 5 all the same. A file without a whole header
cannot be decrypted, as its key is lost with it.

The volume must not be mounted, except for reading (-o ro).`

const decryptExample = `  envfs decrypt /backup/data /srv/restored
  envfs decrypt /backup/data/0pQ…/7Xk… letter
  envfs decrypt --volume /safe/envfs.json Zk3… letter
  envfs decrypt --salvage --json /data /srv/rescued`

// transferReport is what envfs decrypt and envfs encrypt say. Programs may read it.
type transferReport struct {
	Volume      string `json:"volume"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	volume.TransferCount
	Lost     []lostFile    `json:"lost"`
	Failures []fileFailure `json:"failures"`
}

// lostFile is a file of which a part is lost, and zeros in the copy.
type lostFile struct {
	Path   string      `json:"path"` // of the ciphertext
	Size   int64       `json:"size"` // of the plaintext in bytes
	Ranges []lostBytes `json:"ranges"`
}

type lostBytes struct {
	Block  int64  `json:"block"` // the first
	Blocks int64  `json:"blocks"`
	From   int64  `json:"from"` // bytes of the plaintext, To excluded
	To     int64  `json:"to"`
	Reason string `json:"reason"`
}

func newLostFile(path string, l volume.LostContent) lostFile {
	f := lostFile{Path: path, Size: l.Size}
	for _, r := range l.Ranges {
		b := lostBytes{Block: r.Block, Blocks: r.Blocks, Reason: r.Reason}
		b.From, b.To = r.Bytes(l.Size)
		f.Ranges = append(f.Ranges, b)
	}
	return f
}

// lines says what is lost, for people.
func (f lostFile) lines() (lines []string) {
	for _, r := range f.Ranges {
		lines = append(lines, fmt.Sprintf("envfs: %s: bytes %d to %d are lost, and zeros in the copy: %s", f.Path, r.From, r.To-1, r.Reason))
	}
	return lines
}

type decryptCommand struct {
	app     *app
	keys    keySettings
	config  string
	force   bool
	salvage bool
	asJSON  bool
}

func newDecrypt(a *app) *cobra.Command {
	d := &decryptCommand{app: a}
	cmd := &cobra.Command{
		Use:     "decrypt [flags] SRC DST",
		Short:   "decrypt a file or a tree without a mount",
		Long:    decryptLong,
		Example: decryptExample,
		Args:    operands("SRC", "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.keys.check(cmd); err != nil {
				return err
			}
			return d.run(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&d.config, "volume", "", "`DIR` that holds envfs.json, or a copy of that file (default: at or above SRC)")
	cmd.Flags().BoolVar(&d.force, "force", false, "replace files that are there")
	cmd.Flags().BoolVar(&d.salvage, "salvage", false, "write zeros for blocks that cannot be read, and list them")
	cmd.Flags().BoolVar(&d.asJSON, "json", false, "print JSON")
	d.keys.addPinFlags(cmd.Flags())
	d.keys.addFlags(cmd.Flags())
	return cmd
}

func (d *decryptCommand) run(ctx context.Context, src, dst string) error {
	o, err := findCiphertext(src, d.config)
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return o.use(ctx, d.app, d.keys, func(v *volume.Volume) error {
		o.warnOfJournal(d.app)
		return d.decrypt(ctx, o, v, transferReport{Volume: o.dir, Source: src, Destination: dst, Lost: []lostFile{}})
	})
}

func (d *decryptCommand) decrypt(ctx context.Context, o *offlineVolume, v *volume.Volume, report transferReport) error {
	meter := progress.New(d.app.stderr, progress.Options{Verb: "decrypted", Bytes: true, Number: number})
	failures := &failureList{meter: meter, dir: o.dir}
	count, err := v.Export(ctx, volume.ExportOptions{
		TransferOptions: transferOptions(d.force, failures, meter),
		Source:          o.rel, Target: report.Destination, Salvage: d.salvage,
		Lost: func(l volume.LostContent) {
			f := newLostFile(failures.path(l.Path), l)
			report.Lost = append(report.Lost, f)
			for _, line := range f.lines() {
				meter.Println(line)
			}
		},
	})
	meter.Close()
	report.TransferCount, report.Failures = count, failures.list()
	if err != nil {
		err = aboutNamed(o.dir, err)
	} else {
		err = errors.Join(failures.err(o.dir, count.Files+count.Failed), lostError(o.dir, report.Lost))
	}
	return errors.Join(report.print(d.app, d.asJSON, "decrypted"), err)
}

// transferOptions reports to a list and a meter.
func transferOptions(force bool, failures *failureList, meter *progress.Meter) volume.TransferOptions {
	return volume.TransferOptions{
		Force: force, Failed: failures.add,
		Progress: func(c volume.TransferCount) { meter.Update(c.Done, c.Found, c.Complete) },
	}
}

// lostError sums up what was salvaged with losses; nil if nothing was lost.
func lostError(dir string, lost []lostFile) error {
	if len(lost) == 0 {
		return nil
	}
	return about(dir, classedError{"parts of " + countFiles(int64(len(lost))) + " are lost", errDamageFound})
}

func (r transferReport) print(a *app, asJSON bool, verb string) error {
	warnOfOwners(a, r.TransferCount)
	switch {
	case asJSON:
		return writeJSON(a, r)
	case r.TransferCount == volume.TransferCount{Found: r.Found, Done: r.Done, Complete: r.Complete}:
		return nil // there was nothing to do, or nothing could be done
	}
	text := verb + " " + sumUp(r.TransferCount)
	if r.Foreign > 0 {
		text += fmt.Sprintf("; %s left out, as they are not of this volume", countFiles(r.Foreign))
	}
	_, err := fmt.Fprintln(a.stdout, text)
	return err
}
