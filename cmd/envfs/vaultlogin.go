package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/keyring/vault"
)

// loginSettings say how to log in to Vault. Credentials are in files, never in
// the settings themselves.
type loginSettings struct {
	Method    string // a vault.Method; "" follows from the others
	AuthMount string
	Role      string
	TokenFile string

	RoleID              string
	SecretIDFile        string
	WrappedSecretIDFile string
	ServiceAccountFile  string
	Username            string
	PasswordFile        string
}

// loginFlag is a flag of one login method, or of two.
type loginFlag struct {
	name    string
	value   *string
	methods []vault.Method
	isFile  bool
	usage   string
}

// flags lists all but --vault-auth and --vault-auth-mount.
func (l *loginSettings) flags() []loginFlag {
	token, appRole := []vault.Method{vault.MethodToken}, []vault.Method{vault.MethodAppRole}
	kubernetes, userpass := []vault.Method{vault.MethodKubernetes}, []vault.Method{vault.MethodUserpass}
	return []loginFlag{
		{"token-file", &l.TokenFile, token, true, "read the Vault token from `FILE` (default: $VAULT_TOKEN, then ~/.vault-token)"},
		{"approle-role-id", &l.RoleID, appRole, false, "log in to Vault by AppRole with this `ROLE-ID`"},
		{"approle-secret-id-file", &l.SecretIDFile, appRole, true, "read the AppRole secret ID from `FILE`"},
		{"approle-wrapped-secret-id-file", &l.WrappedSecretIDFile, appRole, true, "read from `FILE` a wrapping token that gives the AppRole secret ID, once"},
		{"vault-role", &l.Role, []vault.Method{vault.MethodKubernetes, vault.MethodCert}, false, "`ROLE` to log in for, by kubernetes or cert"},
		{"kubernetes-token-file", &l.ServiceAccountFile, kubernetes, true, "read the token of the service account from `FILE` (default: that of the pod)"},
		{"userpass-username", &l.Username, userpass, false, "log in to Vault by userpass with this `NAME`"},
		{"userpass-password-file", &l.PasswordFile, userpass, true, "read the password of userpass from `FILE`"},
	}
}

func (l *loginSettings) addFlags(flags *pflag.FlagSet) {
	var methods []string
	for _, m := range vault.Methods() {
		methods = append(methods, string(m))
	}
	flags.Var(newChoice(&l.Method, "", methods...), "vault-auth", "how to log in to Vault (default: as the flags below say, else token)")
	flags.StringVar(&l.AuthMount, "vault-auth-mount", "", "`PATH` where the login method is enabled (default: its name)")
	for _, f := range l.flags() {
		flags.StringVar(f.value, f.name, "", f.usage)
	}
}

// names lists all flags.
func (l *loginSettings) names() []string {
	names := []string{"vault-auth", "vault-auth-mount"}
	for _, f := range l.flags() {
		names = append(names, f.name)
	}
	return names
}

// check settles the method, finds flags that make no sense together, and makes
// paths independent of the working directory.
func (l *loginSettings) check(cmd *cobra.Command) error {
	method, err := l.method(cmd)
	if err != nil {
		return err
	}
	if err := l.complete(cmd, method); err != nil {
		return err
	}
	l.Method = string(method)
	for _, f := range l.flags() {
		if !f.isFile || *f.value == "" {
			continue
		}
		if *f.value, err = filepath.Abs(*f.value); err != nil {
			return err
		}
	}
	return nil
}

// method is the one that is named, or the one whose flags are given.
func (l *loginSettings) method(cmd *cobra.Command) (vault.Method, error) {
	method, by := vault.Method(l.Method), "vault-auth "+l.Method
	for _, f := range l.flags() {
		if *f.value == "" {
			continue
		}
		switch {
		case method == "" && len(f.methods) > 1:
			return "", usagef(cmd, "--%s needs --vault-auth %s", f.name, oneOf(f.methods))
		case method == "":
			method, by = f.methods[0], f.name
		case !slices.Contains(f.methods, method):
			return "", usagef(cmd, "--%s and --%s exclude each other", by, f.name)
		}
	}
	return method, nil
}

// complete finds what a method lacks.
func (l *loginSettings) complete(cmd *cobra.Command, method vault.Method) error {
	switch method {
	case vault.MethodAppRole:
		if l.SecretIDFile != "" && l.WrappedSecretIDFile != "" {
			return usagef(cmd, "--approle-secret-id-file and --approle-wrapped-secret-id-file exclude each other")
		}
		if l.RoleID == "" || l.SecretIDFile == "" && l.WrappedSecretIDFile == "" {
			return usagef(cmd, "--approle-role-id and --approle-secret-id-file belong together")
		}
	case vault.MethodKubernetes:
		if l.Role == "" {
			return usagef(cmd, "--vault-auth kubernetes needs --vault-role")
		}
	case vault.MethodUserpass:
		if l.Username == "" || l.PasswordFile == "" {
			return usagef(cmd, "--userpass-username and --userpass-password-file belong together")
		}
	}
	return nil
}

// fill sets what of the options is about the login.
func (l *loginSettings) fill(o *vault.Options) {
	o.Method, o.AuthMount, o.Role = vault.Method(l.Method), l.AuthMount, l.Role
	o.TokenFile = l.TokenFile
	o.RoleID, o.SecretIDFile, o.WrappedSecretIDFile = l.RoleID, l.SecretIDFile, l.WrappedSecretIDFile
	o.ServiceAccountFile = l.ServiceAccountFile
	o.Username, o.PasswordFile = l.Username, l.PasswordFile
}

func oneOf(methods []vault.Method) string {
	text := string(methods[0])
	for _, m := range methods[1:] {
		text = fmt.Sprintf("%s or %s", text, m)
	}
	return text
}
