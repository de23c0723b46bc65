package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/local"
	"github.com/envfs/envfs/volume"
)

const passwdLong = `Change the passphrase of the volume DIR. Only DIR/envfs.json is rewritten, at
once or not at all; no file is touched, and a mount that is running goes on.

Copies of the old envfs.json still open with the old passphrase. If it has become
known to somebody who has such a copy, a new passphrase does not keep him out.`

const passwdExample = `  envfs passwd /data
  envfs passwd --passphrase-file old --new-passphrase-file new /data`

// passwdCommand changes a passphrase.
type passwdCommand struct {
	app        *app
	keys       keySettings
	newFile    string
	newCommand string
	argon2     argon2Settings
}

func newPasswd(a *app) *cobra.Command {
	p := &passwdCommand{app: a}
	cmd := &cobra.Command{
		Use:     "passwd [flags] DIR",
		Short:   "change the passphrase of a volume",
		Long:    passwdLong,
		Example: passwdExample,
		Args:    operands("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(cmd); err != nil {
				return err
			}
			return p.run(cmd.Context(), args[0])
		},
	}
	p.keys.addPassphraseFlags(cmd.Flags())
	cmd.Flags().StringVar(&p.newFile, "new-passphrase-file", "", "read the new passphrase from `FILE`")
	cmd.Flags().StringVar(&p.newCommand, "new-passphrase-command", "", "read the new passphrase from the output of `COMMAND`")
	p.argon2.addFlags(cmd.Flags())
	return cmd
}

func (p *passwdCommand) check(cmd *cobra.Command) error {
	if p.newFile != "" && p.newCommand != "" {
		return usagef(cmd, "--new-passphrase-file and --new-passphrase-command exclude each other")
	}
	if p.newFile == "-" && p.keys.PassphraseFile == "-" {
		return usagef(cmd, "only one passphrase can come from standard input")
	}
	if err := p.keys.check(cmd); err != nil {
		return err
	}
	return p.argon2.check(cmd)
}

func (p *passwdCommand) run(ctx context.Context, dir string) error {
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		return aboutNamed(dir, err)
	}
	if cfg.Keyring.Type != volume.KeyringLocal {
		return about(dir, errNoPassphrase)
	}
	log := p.app.log()
	p.app.protect(log)
	opener := keyringOpener{keySettings: p.keys, arena: secret.NewArena(log)}
	passphrase, err := p.keys.passphrase(ctx, p.app, dir, cfg)
	if err != nil {
		return err
	}
	defer secret.Wipe(passphrase)
	kr, err := opener.openLocal(cfg.Keyring, passphrase)
	if err != nil {
		return about(dir, err)
	}
	defer kr.Close()
	v, err := volume.Open(ctx, dir, cfg, kr, volume.OpenOptions{Unlocked: true, Arena: opener.arena, Log: log})
	if err != nil {
		return aboutNamed(dir, err)
	}
	err = p.change(ctx, dir, kr, v)
	if closeErr := v.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		fmt.Fprintf(p.app.stdout, "changed the passphrase of %s\n", dir)
	}
	return err
}

// change asks for the new passphrase and writes the new keyring.
func (p *passwdCommand) change(ctx context.Context, dir string, kr *local.Keyring, v *volume.Volume) error {
	source := passphraseSource{file: p.newFile, command: p.newCommand, prompt: "new passphrase for " + dir, twice: true}
	passphrase, err := source.read(ctx, p.app)
	if err != nil {
		return err
	}
	defer secret.Wipe(passphrase)
	cfg, err := kr.ChangePassphrase(passphrase, p.argon2.params())
	if err != nil {
		return about(dir, err)
	}
	ref, err := localRef(cfg)
	if err != nil {
		return err
	}
	return aboutNamed(dir, v.UpdateKeyring(ref))
}
