package vault

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/auth/userpass"
)

// userpassLogin logs in with a name and a password.
type userpassLogin struct{ user, file, mount string }

func newUserpassLogin(o Options) (loginMethod, error) {
	if o.Username == "" || o.PasswordFile == "" {
		return nil, configError("", "login by userpass needs a user's name and a file with the password")
	}
	return userpassLogin{user: o.Username, file: o.PasswordFile, mount: o.authMount(MethodUserpass)}, nil
}

func (u userpassLogin) String() string { return "userpass user " + u.user }

func (u userpassLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	password, err := readPassword(u.file)
	if err != nil {
		return nil, err
	}
	method, err := userpass.NewUserpassAuth(u.user, &userpass.Password{FromString: password}, userpass.WithMountPath(u.mount))
	if err != nil {
		return nil, denied("", err)
	}
	reply, err := method.Login(ctx, client)
	return loggedIn(client, reply, err)
}

// readPassword reads a password. White space is part of it, but for the end of
// the line.
func readPassword(path string) (string, error) {
	text, err := readSmall(path)
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	return needed(path, text, err)
}
