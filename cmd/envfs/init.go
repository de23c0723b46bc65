package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/local"
	"github.com/envfs/envfs/volume"
)

const initLong = `Make the directory DIR an encrypted volume. DIR is made if it is missing; it must
be empty otherwise.

Keys of files are wrapped by a keyring:
  local   a passphrase. It is asked for twice, or read from --passphrase-file.
          It cannot be recovered.
  vault   a Transit key of HashiCorp Vault or OpenBao, named by --transit-key and
          --transit-mount, which must exist. The address and the login come from
          Vault's own variables (VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, …) or the
          flags below. They are not stored in the volume.

The only file written is DIR/envfs.json. Keep a copy: without it, and the
passphrase or the Transit key, the files cannot be read. It holds no secret in
the clear.`

const initExample = `  envfs init /data
  envfs init --passphrase-file /root/data.pass /data
  envfs init --keyring vault --transit-key docs /data2`

// initCommand makes a volume.
type initCommand struct {
	app            *app
	keys           keySettings
	keyringType    string
	plaintextNames bool
	adopt          bool
	argon2         argon2Settings
}

func newInit(a *app) *cobra.Command {
	i := &initCommand{app: a}
	cmd := &cobra.Command{
		Use:     "init [flags] DIR",
		Short:   "make a directory an encrypted volume",
		Long:    initLong,
		Example: initExample,
		Args:    operands("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := i.check(cmd); err != nil {
				return err
			}
			return i.run(cmd.Context(), args[0])
		},
	}
	flags := cmd.Flags()
	flags.Var(newChoice(&i.keyringType, volume.KeyringLocal, volume.KeyringLocal, volume.KeyringVault), "keyring", "what wraps the keys of files")
	flags.StringVar(&i.keys.TransitKey, "transit-key", "", "name of the Transit `KEY` (keyring vault)")
	flags.StringVar(&i.keys.TransitMount, "transit-mount", "transit", "`PATH` of the Transit secrets engine (keyring vault)")
	flags.BoolVar(&i.plaintextNames, "plaintext-names", false, "leave the names of files in the clear")
	flags.BoolVar(&i.adopt, "adopt", false, "accept a directory that is not empty; what is there stays, hidden from the mount")
	i.keys.addFlags(flags)
	i.argon2.addFlags(flags)
	return cmd
}

func (i *initCommand) check(cmd *cobra.Command) error {
	if err := i.keys.check(cmd); err != nil {
		return err
	}
	isVault := i.keyringType == volume.KeyringVault
	if isVault && i.keys.TransitKey == "" {
		return usagef(cmd, "--keyring vault needs --transit-key")
	}
	for _, name := range append([]string{"transit-key", "transit-mount", "vault-addr", "namespace"}, i.keys.Login.names()...) {
		if !isVault && cmd.Flags().Changed(name) {
			return usagef(cmd, "--%s needs --keyring vault", name)
		}
	}
	for _, name := range []string{"passphrase-file", "passphrase-command", "argon2-memory", "argon2-time"} {
		if isVault && cmd.Flags().Changed(name) {
			return usagef(cmd, "--%s is for --keyring local", name)
		}
	}
	return i.argon2.check(cmd)
}

func (i *initCommand) run(ctx context.Context, dir string) error {
	if err := i.look(dir); err != nil {
		return err
	}
	log := i.app.log()
	i.app.protect(log)
	arena := secret.NewArena(log)
	o := volume.InitOptions{
		Arena: arena, VolumeID: crypto.NewID(),
		PlaintextNames: i.plaintextNames, Adopt: i.adopt,
	}
	kr, err := i.openKeyring(ctx, dir, &o)
	if err != nil {
		return err
	}
	defer kr.Close()
	o.Keyring = kr
	cfg, err := volume.Init(ctx, dir, o)
	if err != nil {
		return aboutNamed(dir, err)
	}
	i.tell(dir, cfg)
	return nil
}

// look finds what forbids a volume before a passphrase is asked for.
// volume.Init looks again.
func (i *initCommand) look(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == volume.ConfigName {
			return about(dir, volume.ErrExists)
		}
	}
	return nil
}

// openKeyring makes or opens the keyring of the new volume, and refers to it
// in the options.
func (i *initCommand) openKeyring(ctx context.Context, dir string, o *volume.InitOptions) (closableKeyring, error) {
	if i.keyringType == volume.KeyringVault {
		ref := volume.VaultRef{Mount: i.keys.TransitMount, Key: i.keys.TransitKey}
		o.Ref = volume.KeyringRef{Type: volume.KeyringVault, Vault: &ref}
		opener := keyringOpener{keySettings: i.keys, arena: o.Arena}
		return opener.openVault(ctx, ref, o.VolumeID[:])
	}
	source := passphraseSource{
		file: i.keys.PassphraseFile, command: i.keys.PassphraseCommand,
		prompt: "new passphrase for " + dir, twice: true,
	}
	passphrase, err := source.read(ctx, i.app)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(passphrase)
	kr, cfg, err := local.Create(o.Arena, passphrase, i.argon2.params())
	if err != nil {
		return nil, err
	}
	o.Ref, err = localRef(cfg)
	return kr, err
}

// tell prints what was made and what comes next.
func (i *initCommand) tell(dir string, cfg *volume.Config) {
	names := "encrypted names"
	if cfg.Names == volume.NamesPlaintext {
		names = "plaintext names"
	}
	wrapped := "a passphrase"
	if v := cfg.Keyring.Vault; v != nil {
		wrapped = fmt.Sprintf("the Transit key %q at %q", v.Key, v.Mount)
	}
	fmt.Fprintf(i.app.stdout, "made volume %v in %s: %s, keys wrapped by %s\n", cfg.VolumeID, dir, names, wrapped)
	fmt.Fprintf(i.app.stdout, "keep a copy of %s; next: envfs mount %s MOUNTPOINT\n",
		filepath.Join(dir, volume.ConfigName), quote(dir))
}
