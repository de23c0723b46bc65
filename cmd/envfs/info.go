package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/volume"
)

const infoLong = `Say what is known of a volume or of one file, without a key.

PATH may be
  a ciphertext directory     format, keyring, mounts, number and size of files
  a file in it               header, version of its key, sizes, both paths
  a path inside a mount      the same of the ciphertext file behind it
The plaintext path of a ciphertext file is shown if the key is at hand: by the
flags below for a passphrase, or by Vault's variables.

Of a volume, files are counted by the version of the key that wrapped theirs.
With --require-version N the command exits with 1 if any key, the volume's
included, needs a version before N. Else those can be disabled in Vault.

What a header says is not verified here. If it is damaged, or the size of the
file contradicts it, the command says so and exits with 5.`

const infoExample = `  envfs info /data
  envfs info /mnt/clear/letter.txt
  envfs info --json /data/Zk3…
  envfs info --require-version 3 /data`

// infoReport is what envfs info says. Programs may read it.
type infoReport struct {
	Volume *volume.VolumeInfo `json:"volume,omitempty"` // of a volume
	Mounts []infoMount        `json:"mounts,omitempty"` // of a volume
	Entry  *infoEntry         `json:"entry,omitempty"`  // of anything in a volume
	File   *volume.FileInfo   `json:"file,omitempty"`   // of a regular file
}

// infoMount is a mount of a volume.
type infoMount struct {
	Mountpoint string `json:"mountpoint"`
	ReadOnly   bool   `json:"read_only"`
}

// infoEntry says where something in a volume is.
type infoEntry struct {
	Type           string `json:"type"`                     // file, directory, symlink, …
	CiphertextPath string `json:"ciphertext_path"`          // absolute
	PlaintextPath  string `json:"plaintext_path,omitempty"` // below the root of the volume
	PlaintextNote  string `json:"plaintext_note,omitempty"` // why it is missing
}

var errDamageFound = errors.New("damage found")

type infoCommand struct {
	app    *app
	keys   keySettings
	asJSON bool
	// requireVersion is the version of the wrapping key that everything must have; 0: any.
	requireVersion int
}

func newInfo(a *app) *cobra.Command {
	i := &infoCommand{app: a}
	cmd := &cobra.Command{
		Use:     "info [flags] PATH",
		Short:   "say what is known of a volume or a file",
		Long:    infoLong,
		Example: infoExample,
		Args:    operands("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if i.requireVersion < 0 {
				return usagef(cmd, "--require-version must be positive")
			}
			if err := i.keys.check(cmd); err != nil {
				return err
			}
			return i.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVar(&i.asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&i.requireVersion, "require-version", 0, "fail if a key is wrapped by a version before `N`")
	i.keys.addFlags(cmd.Flags())
	return cmd
}

func (i *infoCommand) run(ctx context.Context, path string) error {
	p, err := locate(path)
	if err != nil {
		return err
	}
	report, err := i.report(ctx, p)
	if err != nil {
		return err
	}
	if i.asJSON {
		err = writeJSON(i.app, report)
	} else {
		err = report.write(i.app.stdout)
	}
	if err == nil && report.File != nil && len(report.File.Problems) > 0 {
		err = about(p.ciphertext(), fmt.Errorf("%w: %s", errDamageFound, report.File.Problems[0]))
	}
	if err == nil {
		err = about(p.volume, report.requireVersion(i.requireVersion))
	}
	return err
}

var errOlderKeys = errors.New("keys of an older version")

// requireVersion fails if a key is wrapped by a version before the given one, or if that cannot be told.
func (r infoReport) requireVersion(version int) error {
	if v := r.Volume; v != nil && v.OldestKEK() < version {
		var files int64
		for _, c := range v.KEKVersions {
			if c.Version < version {
				files += c.Files
			}
		}
		if v.KEKVersion < version {
			return fmt.Errorf("%w than %d, or unknown: %s, and the volume key", errOlderKeys, version, countFiles(files))
		}
		return fmt.Errorf("%w than %d, or unknown: %s", errOlderKeys, version, countFiles(files+v.Tree.Unreadable))
	}
	if f := r.File; f != nil && f.Header != nil && f.Header.KEKVersion < version {
		return fmt.Errorf("%w than %d, or unknown: this file", errOlderKeys, version)
	}
	return nil
}

func (i *infoCommand) report(ctx context.Context, p place) (infoReport, error) {
	if p.rel == "." {
		info, err := volume.Inspect(p.volume)
		return infoReport{Volume: &info, Mounts: p.mounts()}, aboutNamed(p.volume, err)
	}
	kind, err := p.kind()
	if err != nil {
		return infoReport{}, err
	}
	r := infoReport{Entry: &infoEntry{Type: kind, CiphertextPath: p.ciphertext(), PlaintextPath: p.plaintext}}
	if p.plaintext == "" {
		r.Entry.PlaintextPath, r.Entry.PlaintextNote = i.decryptPath(ctx, p)
	}
	if kind == "file" {
		info, err := volume.InspectFile(p.ciphertext())
		if err != nil {
			return r, err
		}
		r.File = &info
	}
	return r, nil
}

// decryptPath finds out the plaintext path if that needs no question, or says
// why it does not know it.
func (i *infoCommand) decryptPath(ctx context.Context, p place) (path, note string) {
	cfg, err := volume.ReadConfig(p.volume)
	if err != nil {
		return "", err.Error()
	}
	switch {
	case cfg.Names == volume.NamesPlaintext:
		return p.rel, ""
	case i.keys.atHand(i.app, cfg):
	case cfg.Keyring.Type == volume.KeyringLocal:
		return "", "needs the key: --passphrase-file or --passphrase-command"
	default:
		return "", "needs the key: set VAULT_ADDR and VAULT_TOKEN"
	}
	v, err := openForNames(ctx, i.app, &i.keys, p.volume)
	if err != nil {
		return "", err.Error()
	}
	path, err = v.DecryptPath(p.rel)
	if err = errors.Join(err, v.Close()); err != nil {
		return "", err.Error()
	}
	return path, ""
}
