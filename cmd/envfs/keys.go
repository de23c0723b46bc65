package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/local"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/volume"
)

// keySettings say how to get at the keys of a volume. None of them is secret,
// so they may stand in a command line and go to a daemon as they are.
type keySettings struct {
	PassphraseFile    string
	PassphraseCommand string

	TransitKey   string // the key that the volume must name, if it is given
	TransitMount string // likewise the path of its secrets engine
	VaultAddr    string
	Namespace    string
	Login        loginSettings
}

// addFlags adds the flags of keySettings. They are the same in all commands.
func (k *keySettings) addFlags(flags *pflag.FlagSet) {
	k.addPassphraseFlags(flags)
	k.addVaultFlags(flags)
}

// addVaultFlags adds those of a volume with a Transit key.
func (k *keySettings) addVaultFlags(flags *pflag.FlagSet) {
	flags.StringVar(&k.VaultAddr, "vault-addr", "", "`URL` of Vault, or unix:///path of an Agent or Proxy (default: $VAULT_ADDR)")
	flags.StringVar(&k.Namespace, "namespace", "", "Vault `NAMESPACE` (default: $VAULT_NAMESPACE)")
	k.Login.addFlags(flags)
}

// addPinFlags adds those by which the user, not the volume, says which Transit key it is.
func (k *keySettings) addPinFlags(flags *pflag.FlagSet) {
	flags.StringVar(&k.TransitKey, "transit-key", "", "refuse a volume that names another Transit `KEY`")
	flags.StringVar(&k.TransitMount, "transit-mount", "", "refuse a volume that names another Transit engine than the one at `PATH`")
}

// addPassphraseFlags adds those of a volume with a passphrase.
func (k *keySettings) addPassphraseFlags(flags *pflag.FlagSet) {
	flags.StringVar(&k.PassphraseFile, "passphrase-file", "", "read the passphrase from `FILE` (\"-\": standard input)")
	flags.StringVar(&k.PassphraseCommand, "passphrase-command", "", "read the passphrase from the output of `COMMAND`, run by sh")
}

// check finds combinations that make no sense and makes paths independent of
// the working directory.
func (k *keySettings) check(cmd *cobra.Command) error {
	if k.PassphraseFile != "" && k.PassphraseCommand != "" {
		return usagef(cmd, "--passphrase-file and --passphrase-command exclude each other")
	}
	if err := k.Login.check(cmd); err != nil {
		return err
	}
	if k.PassphraseFile == "" || k.PassphraseFile == "-" {
		return nil
	}
	var err error
	k.PassphraseFile, err = filepath.Abs(k.PassphraseFile)
	return err
}

// passphrase asks for the passphrase of a volume as the settings say. It
// returns nil for a volume that has none.
func (k *keySettings) passphrase(ctx context.Context, a *app, dir string, cfg *volume.Config) ([]byte, error) {
	if cfg.Keyring.Type != volume.KeyringLocal {
		return nil, nil
	}
	s := passphraseSource{
		file: k.PassphraseFile, command: k.PassphraseCommand,
		prompt: "passphrase of " + dir,
	}
	return s.read(ctx, a)
}

// atHand tells whether the keys of a volume can be had without asking anybody.
func (k *keySettings) atHand(a *app, cfg *volume.Config) bool {
	if cfg.Keyring.Type == volume.KeyringLocal {
		return k.PassphraseFile != "" || k.PassphraseCommand != ""
	}
	_, hasAddr := a.env("VAULT_ADDR")
	return hasAddr || k.VaultAddr != ""
}

// closableKeyring is what both kinds of keyring are.
type closableKeyring interface {
	keyring.Keyring
	Close()
}

// keyringOpener opens keyrings for one process.
type keyringOpener struct {
	keySettings
	arena *secret.Arena
	log   *slog.Logger // of what happens to a login later on; nil in commands that end before
}

// open opens the keyring of a volume. It wipes the passphrase.
func (o keyringOpener) open(ctx context.Context, cfg *volume.Config, passphrase []byte) (closableKeyring, error) {
	defer secret.Wipe(passphrase)
	switch cfg.Keyring.Type {
	case volume.KeyringLocal:
		return o.openLocal(cfg.Keyring, passphrase)
	case volume.KeyringVault:
		return o.openVault(ctx, *cfg.Keyring.Vault, cfg.VolumeID[:])
	}
	return nil, fmt.Errorf("unknown kind of keyring %q", cfg.Keyring.Type)
}

func (o keyringOpener) openLocal(ref volume.KeyringRef, passphrase []byte) (*local.Keyring, error) {
	var cfg local.Config
	if err := json.Unmarshal(ref.Local, &cfg); err != nil {
		return nil, fmt.Errorf("%w: keyring: %w", volume.ErrDamagedConfig, err)
	}
	kr, err := local.Open(o.arena, cfg, passphrase)
	if errors.Is(err, keyring.ErrDenied) {
		return nil, errWrongPassphrase
	}
	return kr, err
}

// localRef is how a volume refers to its passphrase keyring.
func localRef(cfg local.Config) (volume.KeyringRef, error) {
	raw, err := json.Marshal(cfg)
	return volume.KeyringRef{Type: volume.KeyringLocal, Local: raw}, err
}

// openVault logs in to Vault. The address comes from the command line or the
// environment, never from the volume.
func (o keyringOpener) openVault(ctx context.Context, ref volume.VaultRef, volumeID []byte) (*vault.Keyring, error) {
	options := o.vaultOptions(ref)
	options.Arena, options.Log, options.Context = o.arena, o.log, volumeID
	return vault.Open(ctx, options)
}

// vaultOptions are those for a Transit key, but for what depends on a volume
// and on the process.
func (k *keySettings) vaultOptions(ref volume.VaultRef) vault.Options {
	options := vault.Options{Address: k.VaultAddr, Namespace: k.Namespace, Mount: ref.Mount, Key: ref.Key}
	k.Login.fill(&options)
	return options
}
