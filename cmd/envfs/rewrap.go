package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/local"
	"github.com/envfs/envfs/volume"
)

const rewrapLong = `Move the keys of a volume to the newest version of the key that wraps them: the
volume key, and the key in the header of each file. DIR is its ciphertext
directory, or where it is mounted; a mount goes on working meanwhile.

With Vault, rotate the Transit key first. The token needs no right to decrypt:
  path "transit/rewrap/KEY" { capabilities = ["update"] }
  path "transit/keys/KEY"   { capabilities = ["read"] }
Keys are rewrapped by Vault, this command never sees them, and asks for no
passphrase. With a passphrase, --new-version makes a new key version first; the
volume must not be mounted then.

Contents are not touched, times and modes of files stay. The command may be
stopped or killed at any instant: every file opens, and the next run goes on with
what is left. Files that cannot be rewrapped are reported, and the others are
done. With --dry-run nothing is changed, and nothing recorded.

With --audit-log, each file is recorded by its ciphertext path, since this
command cannot read names; envfs path decrypt translates it.

A mount that was running when the key was rotated may, for some minutes, give new
files keys that the old version has wrapped: before that is disabled, run the
command again, and see envfs info --require-version.`

const rewrapExample = `  vault write -f transit/keys/docs/rotate && envfs rewrap /data
  envfs rewrap --dry-run --json /mnt/clear
  envfs rewrap --new-version --passphrase-file pass /data`

var errNotWholeVolume = errors.New("not a volume, but something in one")

// rewrapReport is what envfs rewrap says. Programs may read it.
type rewrapReport struct {
	Volume string `json:"volume"`
	DryRun bool   `json:"dry_run"`
	volume.RewrapResult
	Failures []fileFailure `json:"failures"`
}

type rewrapCommand struct {
	app        *app
	keys       keySettings
	audit      auditSettings
	dryRun     bool
	asJSON     bool
	offline    bool
	newVersion bool
}

func newRewrap(a *app) *cobra.Command {
	r := &rewrapCommand{app: a}
	cmd := &cobra.Command{
		Use:     "rewrap [flags] DIR",
		Short:   "move the keys of files to the newest key version",
		Long:    rewrapLong,
		Example: rewrapExample,
		Args:    operands("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.dryRun && r.newVersion {
				return usagef(cmd, "--dry-run and --new-version exclude each other")
			}
			if err := errors.Join(r.keys.check(cmd), r.audit.check(cmd)); err != nil {
				return err
			}
			return r.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().BoolVar(&r.newVersion, "new-version", false, "make a new key version first, in a volume with a passphrase")
	cmd.Flags().BoolVar(&r.offline, "offline", false, "keep others from mounting meanwhile; for file systems without locks on files")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "print JSON")
	r.keys.addFlags(cmd.Flags())
	r.audit.addFlags(cmd.Flags())
	return cmd
}

func (r *rewrapCommand) run(ctx context.Context, path string) error {
	p, err := locate(path)
	if err != nil {
		return err
	}
	if p.rel != "." {
		return about(path, errNotWholeVolume)
	}
	cfg, err := volume.ReadConfig(p.volume)
	if err != nil {
		return aboutNamed(p.volume, err)
	}
	if r.newVersion && cfg.Keyring.Type != volume.KeyringLocal {
		return about(path, errNoPassphrase)
	}
	if r.dryRun {
		r.audit = auditSettings{}
	}
	records, err := openKeyLog(r.app, r.audit, "rewrap", p.volume)
	if err != nil {
		return err
	}
	if cfg.Names == volume.NamesPlaintext {
		records.plain = func(stored string) (string, bool) { return stored, stored != volume.ConfigName }
	}
	return records.done(r.use(ctx, path, p.volume, cfg, records))
}

// use opens the keyring and rewraps the volume dir, of which the user spoke as path.
func (r *rewrapCommand) use(ctx context.Context, path, dir string, cfg *volume.Config, records *keyLog) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	log := r.app.log()
	r.app.protect(log)
	opener := keyringOpener{keySettings: r.keys, arena: secret.NewArena(log)}
	passphrase, err := r.keys.passphrase(ctx, r.app, path, cfg)
	if err != nil {
		return err
	}
	kr, err := opener.open(ctx, cfg, passphrase)
	if err != nil {
		return about(path, err)
	}
	defer kr.Close()
	if r.newVersion {
		if err := records.Ready(); err != nil {
			return err
		}
		if err := addVersion(ctx, dir, cfg, kr.(*local.Keyring), volume.OpenOptions{Arena: opener.arena, Log: log}); err != nil {
			return aboutNamed(dir, err)
		}
	}
	return r.rewrap(ctx, dir, volume.RewrapOptions{
		Keyring: kr.(volume.RewrapKeyring), // both kinds are
		DryRun:  r.dryRun, Alone: r.offline, Audit: records,
	})
}

// addVersion gives a volume with a passphrase a new key version. A mount could not unwrap what it wraps, so none may be there.
func addVersion(ctx context.Context, dir string, cfg *volume.Config, kr *local.Keyring, o volume.OpenOptions) error {
	v, err := volume.Open(ctx, dir, cfg, kr, o)
	if err != nil {
		return err
	}
	err = kr.AddVersion(func(c local.Config) error {
		raw, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return v.UpdateKeyring(volume.KeyringRef{Type: volume.KeyringLocal, Local: raw})
	})
	return errors.Join(err, v.Close())
}

func (r *rewrapCommand) rewrap(ctx context.Context, dir string, o volume.RewrapOptions) error {
	meter := progress.New(r.app.stderr, progress.Options{Verb: "rewrapped", Unit: "files", Number: number})
	failures := &failureList{meter: meter, dir: dir}
	o.Failed = failures.add
	o.Progress = func(c volume.RewrapCount) { meter.Update(c.Rewrapped+c.Current+c.Failed, c.Files, c.Complete) }
	result, err := volume.Rewrap(ctx, dir, o)
	meter.Close()
	report := rewrapReport{Volume: dir, DryRun: r.dryRun, RewrapResult: result, Failures: failures.list()}
	if result.Version > 0 { // the key service was reached
		err = errors.Join(err, r.print(report))
	}
	if err != nil {
		return aboutNamed(dir, err)
	}
	return failures.err(dir, result.Files)
}

func (r *rewrapCommand) print(report rewrapReport) error {
	if r.asJSON {
		return writeJSON(r.app, report)
	}
	_, err := fmt.Fprintln(r.app.stdout, report)
	return err
}

// String is the report for people.
func (r rewrapReport) String() string {
	verb := "rewrapped"
	if r.DryRun {
		verb = "would rewrap"
	}
	text := fmt.Sprintf("%s %s", verb, countFiles(r.Rewrapped))
	if r.VolumeKey {
		text += " and the volume key"
	}
	text += fmt.Sprintf(" to key version %d", r.Version)
	if r.Current > 0 {
		text += fmt.Sprintf(", %s had it", number(r.Current))
	}
	if r.Failed > 0 {
		text += fmt.Sprintf(", %s failed", number(r.Failed))
	}
	if !r.Complete {
		text += ", not all files were looked at"
	}
	return text
}
