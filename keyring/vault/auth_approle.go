package vault

import (
	"context"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/approle"
)

// appRoleLogin logs in with a role ID and a secret ID.
type appRoleLogin struct {
	roleID   func() (string, error)
	secretID secretIDSource
	mount    string
}

// secretIDSource gets the secret ID for one login. The client has no token, and
// is left without one.
type secretIDSource interface {
	secretID(ctx context.Context, client *api.Client) (string, error)
}

func newAppRoleLogin(o Options) (loginMethod, error) {
	a := &appRoleLogin{mount: o.authMount(MethodAppRole)}
	switch {
	case o.RoleID == "" && o.RoleIDFile == "":
		return nil, configError("", "an AppRole needs a role ID")
	case o.RoleID != "":
		a.roleID = func() (string, error) { return o.RoleID, nil }
	default:
		a.roleID = func() (string, error) { return credentialOf(o.RoleIDFile) }
	}
	switch {
	case o.SecretIDFile != "" && o.WrappedSecretIDFile != "":
		return nil, configError("", "both a secret ID and a wrapped one are given")
	case o.SecretIDFile != "":
		a.secretID = secretIDFile(o.SecretIDFile)
	case o.WrappedSecretIDFile != "":
		a.secretID = &wrappedSecretID{file: o.WrappedSecretIDFile, arena: o.Arena}
	default:
		return nil, configError("", "an AppRole needs a file with its secret ID")
	}
	return a, nil
}

func (a *appRoleLogin) String() string { return "AppRole" }

func (a *appRoleLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	role, err := a.roleID()
	if err != nil {
		return nil, err
	}
	id, err := a.secretID.secretID(ctx, client)
	if err != nil {
		return nil, err
	}
	method, err := approle.NewAppRoleAuth(role, &approle.SecretID{FromString: id}, approle.WithMountPath(a.mount))
	if err != nil {
		return nil, denied("", err)
	}
	reply, err := method.Login(ctx, client)
	return loggedIn(client, reply, err)
}

// forget wipes what was kept for the next login.
func (a *appRoleLogin) forget() {
	if w, ok := a.secretID.(*wrappedSecretID); ok {
		w.forget()
	}
}

// secretIDFile is the name of a file that holds a secret ID.
type secretIDFile string

func (f secretIDFile) secretID(context.Context, *api.Client) (string, error) {
	return credentialOf(string(f))
}
