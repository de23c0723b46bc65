package vault

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/keyring"
)

// Method is a way to log in.
type Method string

// The methods. Each reads its credentials again at each login, so that they can
// be replaced while a volume is mounted.
const (
	// MethodToken takes a token from TokenFile, VAULT_TOKEN or the token helper.
	MethodToken Method = "token"
	// MethodAppRole sends a role ID and a secret ID, which may come
	// response-wrapped; see Options.WrappedSecretIDFile.
	MethodAppRole Method = "approle"
	// MethodKubernetes sends the token of a service account for a role.
	MethodKubernetes Method = "kubernetes"
	// MethodUserpass sends a user's name and password.
	MethodUserpass Method = "userpass"
	// MethodCert shows the client certificate of VAULT_CLIENT_CERT and
	// VAULT_CLIENT_KEY in the TLS handshake.
	MethodCert Method = "cert"
	// MethodAgent sends no token: a Vault Agent or Proxy at the address adds
	// one of its own and keeps it alive.
	MethodAgent Method = "agent"
)

// Methods lists the methods.
func Methods() []Method {
	return []Method{MethodToken, MethodAppRole, MethodKubernetes, MethodUserpass, MethodCert, MethodAgent}
}

// method is the one that the options name or, by what they have, mean.
func (o Options) method() (Method, error) {
	role := o.RoleID != "" || o.RoleIDFile != ""
	switch {
	case o.Method == "" && o.TokenFile != "" && role:
		return "", configError("", "both a token file and an AppRole are given")
	case o.Method == "" && role:
		return MethodAppRole, nil
	case o.Method == "":
		return MethodToken, nil
	}
	return o.Method, nil
}

// newLogin picks the method that the options and the environment say.
func newLogin(o Options, client *api.Client) (loginMethod, error) {
	method, err := o.method()
	if err != nil {
		return nil, err
	}
	switch method {
	case MethodToken:
		return newTokenLogin(o), nil
	case MethodAppRole:
		return newAppRoleLogin(o)
	case MethodKubernetes:
		return newKubernetesLogin(o)
	case MethodUserpass:
		return newUserpassLogin(o)
	case MethodCert:
		return newCertLogin(o, client)
	case MethodAgent:
		return agentLogin{}, nil
	}
	return nil, configError("", "unknown login method %q", method)
}

func newTokenLogin(o Options) tokenLogin {
	switch {
	case o.TokenFile != "":
		return tokenLogin{"token file " + o.TokenFile, func() (string, error) { return readCredential(o.TokenFile) }}
	case os.Getenv(api.EnvVaultToken) != "":
		return tokenLogin{"VAULT_TOKEN", func() (string, error) { return os.Getenv(api.EnvVaultToken), nil }}
	}
	return tokenLogin{"token helper", helperToken}
}

// authMount is where a login method is enabled.
func (o Options) authMount(usual Method) string {
	if mount := strings.Trim(o.AuthMount, "/"); mount != "" {
		return mount
	}
	return string(usual)
}

// loggedIn gives the reply to a login its form, and an error its class.
func loggedIn(client *api.Client, reply *api.Secret, err error) (*api.Secret, error) {
	if err != nil {
		return nil, loginError(client, err)
	}
	if reply == nil || reply.Auth == nil || reply.Auth.ClientToken == "" {
		return nil, denied("", errors.New("the login gave no token"))
	}
	return reply, nil
}

// credentialOf reads a credential that must be there.
func credentialOf(path string) (string, error) {
	text, err := readCredential(path)
	return needed(path, text, err)
}

func needed(path, text string, err error) (string, error) {
	if err != nil {
		return "", denied("check the file and its permissions", err)
	}
	if text == "" {
		return "", denied("check the file", errors.New(path+" is empty"))
	}
	return text, nil
}

// postLogin sends credentials to the login path of a method.
func postLogin(ctx context.Context, client *api.Client, path string, credentials map[string]any) (*api.Secret, error) {
	reply, err := client.Logical().WriteWithContext(ctx, path, credentials)
	return loggedIn(client, reply, err)
}

// agentLogin leaves the token to a Vault Agent or Proxy.
type agentLogin struct{}

func (agentLogin) String() string { return "agent" }

func (agentLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	client.ClearToken()
	_, err := client.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		err = loginError(client, err)
		if a, ok := answerOf(err); ok && errors.Is(err, keyring.ErrDenied) {
			return nil, denied("the agent or proxy at the address must have auto_auth and use_auto_auth_token, and its token the policy default", a)
		}
		return nil, err
	}
	// The agent renews: there is no token here, and nothing that expires.
	return &api.Secret{Auth: &api.SecretAuth{}}, nil
}
