package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
	"github.com/hashicorp/vault/api/cliconfig"

	"github.com/envfs/envfs/keyring"
)

// loginMethod gets a token. The client it is given has none; what it returns has
// its Auth set. Errors are of a class.
type loginMethod interface {
	login(ctx context.Context, client *api.Client) (*api.Secret, error)
	String() string // for the log
}

// helperToken asks the token helper of the vault command, which keeps the token
// in ~/.vault-token unless ~/.vault names another helper.
func helperToken() (string, error) {
	if _, err := os.UserHomeDir(); err != nil {
		return "", nil // the library would panic
	}
	helper, err := cliconfig.DefaultTokenHelper()
	if err != nil {
		return "", err
	}
	return helper.Get()
}

// readCredential reads a token or an ID from a file, less white space around it.
func readCredential(path string) (string, error) {
	text, err := readSmall(path)
	return strings.TrimSpace(text), err
}

// readSmall reads a file that is no device and not larger than a credential.
func readSmall(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() && info.Mode()&os.ModeNamedPipe == 0 || info.Size() > 1<<16 {
		return "", fmt.Errorf("%s is no file with a credential", path)
	}
	b, err := os.ReadFile(path)
	return string(b), err
}

// tokenLogin takes a token from where someone else puts it.
type tokenLogin struct {
	source string
	read   func() (string, error)
}

func (t tokenLogin) String() string { return t.source }

func (t tokenLogin) login(ctx context.Context, client *api.Client) (*api.Secret, error) {
	token, err := t.read()
	if err != nil {
		return nil, denied("check the file and its permissions", err)
	}
	if token == "" || strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return nil, denied("log in: `vault login`, or set VAULT_TOKEN", fmt.Errorf("no token in %s", t.source))
	}
	client.SetToken(token)
	self, err := client.Auth().Token().LookupSelfWithContext(ctx)
	var refused *api.ResponseError
	switch {
	case errors.As(err, &refused) && refused.StatusCode == http.StatusForbidden:
		for _, msg := range refused.Errors {
			if strings.Contains(msg, "invalid token") || strings.Contains(msg, "bad token") {
				return nil, denied("get a new one: `vault login`", fmt.Errorf("the token of %s has expired or was revoked", t.source))
			}
		}
		// A token without the policy "default" may not look itself up. Whether
		// it is valid, the first use shows.
		return &api.Secret{Auth: &api.SecretAuth{ClientToken: token}}, nil
	case err != nil:
		return nil, loginError(client, err)
	}
	return &api.Secret{Auth: &api.SecretAuth{
		ClientToken:   token,
		Renewable:     self.Data["renewable"] == true,
		LeaseDuration: seconds(self.Data["ttl"]),
	}}, nil
}

// seconds reads a number of a reply; 0 is a token that does not expire.
func seconds(v any) int {
	if n, ok := v.(json.Number); ok {
		if i, err := n.Int64(); err == nil {
			return int(i)
		}
	}
	return 0
}

func denied(hint string, err error) error {
	return &keyring.Error{Class: keyring.ErrDenied, Op: loginOp, Hint: hint, Err: err}
}

const loginOp = "log in to vault"

// loginError gives a failed login its class. A login answers 400 for wrong
// credentials, and 404 where the method is not enabled.
func loginError(client *api.Client, err error) error {
	var refused *api.ResponseError
	if !errors.As(err, &refused) {
		return transportError(loginOp, client, err)
	}
	a := &answer{status: refused.StatusCode, messages: refused.Errors}
	switch {
	case a.status == http.StatusNotFound || a.says("no handler for route"):
		return &keyring.Error{Class: keyring.ErrConfig, Op: loginOp, Err: a, Hint: "the login method is not enabled there: `vault auth list` shows which are"}
	case retryable(a.status):
		return requestError(loginOp, a)
	case a.says("HTTP request to an HTTPS server"):
		return &keyring.Error{Class: keyring.ErrConfig, Op: loginOp, Err: a, Hint: hintScheme + "https://"}
	case a.status == http.StatusForbidden && a.says("permission denied"): // also of a path where there is nothing
		return denied("vault refuses these credentials, or has no such login method there: `vault auth list` shows which are", a)
	default:
		return denied("vault refuses these credentials", a)
	}
}
