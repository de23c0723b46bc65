package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/volume"
)

const policyLong = `Print a policy for Vault or OpenBao that allows what a role needs, and nothing
more. Nothing is sent anywhere.

Roles:
  mount      mount volumes for reading and writing
  readonly   mount volumes with -o ro
  rewrap     move the wrapped keys of files to the newest version of the Transit
             key, without the right to unwrap any
  init       create the Transit key, and make volumes under it

The Transit key is the one that the volume DIR names, or that of --transit-key.
No policy allows "create" on transit/encrypt: encrypting under a misspelt name
would then make a key.`

const policyExample = `  envfs policy /data2 | vault policy write envfs-data2 -
  envfs policy --role init --transit-key docs
  envfs policy --role rewrap --transit-mount kms --transit-key docs`

var errNoTransitKey = errors.New("the volume has no Transit key: its keyring is local")

// policyCommand prints a policy.
type policyCommand struct {
	app        *app
	role       string
	key, mount string
}

func newPolicy(a *app) *cobra.Command {
	p := &policyCommand{app: a}
	cmd := &cobra.Command{
		Use:     "policy [flags] [DIR]",
		Short:   "print the Vault policy that a role needs",
		Long:    policyLong,
		Example: policyExample,
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.run(cmd, args)
		},
	}
	addRoleFlag(cmd.Flags(), &p.role)
	cmd.Flags().StringVar(&p.key, "transit-key", "", "name of the Transit `KEY`")
	cmd.Flags().StringVar(&p.mount, "transit-mount", "", "`PATH` of the Transit secrets engine (default: that of DIR, else transit)")
	return cmd
}

// atMostOne allows DIR to be left out.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return operands("DIR")(cmd, args)
}

func addRoleFlag(flags *pflag.FlagSet, role *string) {
	var roles []string
	for _, r := range vault.Roles() {
		roles = append(roles, string(r))
	}
	flags.Var(newChoice(role, string(vault.RoleMount), roles...), "role", "what the token is for")
}

func (p *policyCommand) run(cmd *cobra.Command, args []string) error {
	ref := volume.VaultRef{Mount: p.mount, Key: p.key}
	if len(args) > 0 {
		dir, cfg, err := volumeAt(args[0])
		if err != nil {
			return err
		}
		pin := keySettings{TransitKey: p.key, TransitMount: p.mount}
		if err := pin.checkPin(cfg); err != nil {
			return about(dir, err)
		}
		if cfg.Keyring.Vault == nil {
			return about(dir, errNoTransitKey)
		}
		ref = *cfg.Keyring.Vault
	}
	if ref.Key == "" {
		return usagef(cmd, "a DIR or --transit-key must say which key the policy is for")
	}
	if ref.Mount == "" {
		ref.Mount = "transit"
	}
	text, err := vault.Role(p.role).Policy(ref.Mount, ref.Key)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(p.app.stdout, text)
	return err
}

// volumeAt reads the config of the volume to which a path belongs. Nobody has
// vouched for it.
func volumeAt(path string) (dir string, cfg *volume.Config, err error) {
	p, err := locate(path)
	if err != nil {
		return path, nil, err
	}
	cfg, err = volume.ReadConfig(p.volume)
	return p.volume, cfg, aboutNamed(p.volume, err)
}
