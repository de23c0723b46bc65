package integration

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
)

// vaultTask is as much of the vault command as doc/operations.md uses: it does not have to be installed for the tests.
func vaultTask(args []string) error {
	client, err := api.NewClient(nil) // of VAULT_ADDR, VAULT_CACERT and VAULT_TOKEN
	if err != nil {
		return err
	}
	c := vaultCommand{client: client}
	words, err := c.options(args)
	if err != nil {
		return err
	}
	switch {
	case len(words) > 1 && words[0] == "write":
		return c.write(words[1], words[2:])
	case len(words) == 2 && words[0] == "read":
		secret, err := client.Logical().Read(words[1])
		return c.print(secret, err)
	case slices.Equal(words, []string{"token", "create"}):
		secret, err := client.Auth().Token().Create(&c.token)
		return c.print(secret, err)
	case len(words) == 4 && words[0] == "policy" && words[1] == "write" && words[3] == "-":
		rules, err := io.ReadAll(os.Stdin)
		return errors.Join(err, client.Sys().PutPolicy(words[2], string(rules)))
	}
	return fmt.Errorf("not known here: vault %q", words)
}

type vaultCommand struct {
	client *api.Client
	field  string
	token  api.TokenCreateRequest
}

// options takes the options out of a command line.
func (c *vaultCommand) options(args []string) (words []string, err error) {
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "-f":
		case "-field":
			c.field = value
		case "-wrap-ttl":
			c.client.SetWrappingLookupFunc(func(string, string) string { return value })
		case "-policy":
			c.token.Policies = append(c.token.Policies, value)
		case "-period":
			c.token.Period = value
		default:
			if len(name) > 1 && name[0] == '-' {
				return nil, errors.New("not known here: " + name)
			}
			words = append(words, arg)
		}
	}
	return words, nil
}

// write sends pairs like key=value, key=@file and key=-, the last one for standard input.
func (c *vaultCommand) write(path string, pairs []string) error {
	data := map[string]any{}
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		var content []byte
		var err error
		switch file, isFile := strings.CutPrefix(value, "@"); {
		case value == "-":
			content, err = io.ReadAll(os.Stdin)
		case isFile:
			content, err = os.ReadFile(file)
		default:
			content = []byte(value)
		}
		if err != nil {
			return err
		}
		data[key] = string(content)
	}
	secret, err := c.client.Logical().Write(path, data)
	return c.print(secret, err)
}

// print prints the field that was asked for.
func (c *vaultCommand) print(secret *api.Secret, err error) error {
	if err != nil || c.field == "" {
		return err
	}
	fields := map[string]any{}
	if secret != nil {
		maps.Copy(fields, secret.Data)
		if secret.Auth != nil {
			fields["token"] = secret.Auth.ClientToken
		}
		if secret.WrapInfo != nil {
			fields["wrapping_token"] = secret.WrapInfo.Token
		}
	}
	value, ok := fields[c.field]
	if !ok {
		return errors.New("no field " + c.field)
	}
	fmt.Print(value)
	return nil
}
