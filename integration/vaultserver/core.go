package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/credential/userpass"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// initKeys is what initialisation gives away once; kept in the data folder.
type initKeys struct {
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"` // base64, as sys/unseal takes it
}

func logicalBackends() map[string]logical.Factory {
	return map[string]logical.Factory{"transit": transit.Factory}
}

func credentialBackends() map[string]logical.Factory {
	return map[string]logical.Factory{
		"approle":    approle.Factory,
		"userpass":   userpass.Factory,
		"cert":       cert.Factory,
		"kubernetes": kubernetes.Factory,
	}
}

// registry knows the backends compiled in; without one, enabling a mount panics.
type registry struct{}

func (registry) backends(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeSecrets:
		return logicalBackends()
	case consts.PluginTypeCredential:
		return credentialBackends()
	}
	return nil
}

func (r registry) Contains(name string, t consts.PluginType) bool {
	_, ok := r.backends(t)[name]
	return ok
}

func (r registry) Get(name string, t consts.PluginType) (func() (interface{}, error), bool) {
	factory, ok := r.backends(t)[name]
	return func() (interface{}, error) { return factory, nil }, ok
}

func (r registry) Keys(t consts.PluginType) []string {
	var names []string
	for name := range r.backends(t) {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func newCore(data string, log hclog.Logger) (*vault.Core, error) {
	var (
		store physical.Backend
		err   error
	)
	if data == "" {
		store, err = inmem.NewInmem(nil, log)
	} else {
		store, err = file.NewFileBackend(map[string]string{"path": filepath.Join(data, "storage")}, log)
	}
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical:           store,
		LogicalBackends:    logicalBackends(),
		CredentialBackends: credentialBackends(),
		BuiltinRegistry:    registry{},
		DisableMlock:       true,
		Logger:             log,
		DefaultLeaseTTL:    time.Hour,
		MaxLeaseTTL:        24 * time.Hour,
	})
}

// initAndUnseal initialises new storage and enables the mounts, or unseals
// what an earlier start left in data.
func initAndUnseal(core *vault.Core, data string) (initKeys, error) {
	kept := filepath.Join(data, "init.json")
	if data != "" {
		if b, err := os.ReadFile(kept); err == nil {
			var keys initKeys
			if err := json.Unmarshal(b, &keys); err != nil {
				return keys, err
			}
			return keys, unseal(core, keys)
		} else if !errors.Is(err, os.ErrNotExist) {
			return initKeys{}, err
		}
	}
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	res, err := core.Initialize(context.Background(), &vault.InitParams{BarrierConfig: one, RecoveryConfig: one})
	if err != nil {
		return initKeys{}, fmt.Errorf("init: %w", err)
	}
	keys := initKeys{RootToken: res.RootToken, UnsealKey: base64.StdEncoding.EncodeToString(res.SecretShares[0])}
	if err := unseal(core, keys); err != nil {
		return keys, err
	}
	if err := enableMounts(core, keys.RootToken); err != nil {
		return keys, err
	}
	if data == "" {
		return keys, nil
	}
	b, err := json.Marshal(keys)
	if err != nil {
		return keys, err
	}
	return keys, os.WriteFile(kept, b, 0o600)
}

func unseal(core *vault.Core, keys initKeys) error {
	share, err := base64.StdEncoding.DecodeString(keys.UnsealKey)
	if err != nil {
		if share, err = hex.DecodeString(keys.UnsealKey); err != nil {
			return err
		}
	}
	if ok, err := core.Unseal(share); err != nil || !ok {
		return fmt.Errorf("unseal: %t, %w", ok, err)
	}
	return nil
}
