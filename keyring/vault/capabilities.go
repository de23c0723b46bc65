package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Role is something that envfs, or its operator, does with a Transit key.
type Role string

// The roles.
const (
	RoleMount    Role = "mount"    // mount for reading and writing
	RoleReadOnly Role = "readonly" // mount with -o ro
	RoleRewrap   Role = "rewrap"   // move wrapped keys to a newer version, without seeing any
	RoleInit     Role = "init"     // make the key, and volumes under it
)

// Roles lists the roles.
func Roles() []Role { return []Role{RoleMount, RoleReadOnly, RoleRewrap, RoleInit} }

// purpose says what a token of a role is for.
func (r Role) purpose() string {
	return map[Role]string{
		RoleMount:    "mounts volumes for reading and writing",
		RoleReadOnly: "mounts volumes read-only",
		RoleRewrap:   "moves wrapped keys to the newest version of the Transit key, and cannot unwrap any",
		RoleInit:     "creates the Transit key, and makes volumes under it",
	}[r]
}

// Need is one path that a token must be allowed to use.
type Need struct {
	Path         string
	Capabilities []string // all of them: "read", "update"
	For          string   // what envfs does there
}

// Needs lists what a role needs for a key, and nothing more. In no role is it
// "create": encrypting under a misspelt name would then make a key.
func (r Role) Needs(mount, key string) []Need {
	read := Need{mount + "/keys/" + key, []string{"read"}, "read the type and the versions of the key"}
	encrypt := Need{mount + "/encrypt/" + key, []string{"update"}, "wrap the keys of new files"}
	decrypt := Need{mount + "/decrypt/" + key, []string{"update"}, "unwrap the keys of files that are opened"}
	switch r {
	case RoleMount:
		return []Need{encrypt, decrypt, read}
	case RoleReadOnly:
		return []Need{decrypt, read}
	case RoleRewrap:
		return []Need{{mount + "/rewrap/" + key, []string{"update"}, "wrap keys anew without unwrapping them"}, read}
	case RoleInit:
		encrypt.For = "wrap the key of the new volume"
		read.Capabilities, read.For = []string{"read", "update"}, "create the key (vault write -f "+read.Path+") and read its type"
		return []Need{read, encrypt}
	}
	return nil
}

// Policy is the policy of a role in Vault's language, as small as it can be. The
// mount's path and the key's name must be such that they need no quoting.
func (r Role) Policy(mount, key string) (string, error) {
	mount = strings.Trim(mount, "/")
	if err := checkPath(mount, key); err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "# A token with this policy %s:\n# Transit key %q at %s/.\n", r.purpose(), key, mount)
	text.WriteString("# It renews and looks up itself by the policy \"default\", which tokens have unless told otherwise.\n")
	for _, n := range r.Needs(mount, key) {
		fmt.Fprintf(&text, "\n# %s\npath %q {\n  capabilities = [\"%s\"]\n}\n", n.For, n.Path, strings.Join(n.Capabilities, `", "`))
	}
	if r == RoleRewrap {
		fmt.Fprintf(&text, "\n# only if it shall rotate the key as well:\n# path %q {\n#   capabilities = [\"update\"]\n# }\n", mount+"/keys/"+key+"/rotate")
	}
	return text.String(), nil
}

// capabilities asks what the token may do at paths. It needs the policy
// "default", or one that allows update on sys/capabilities-self.
func (k *Keyring) capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	const op = "read the token's capabilities"
	body, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		return nil, err
	}
	reply, err := k.request(ctx, op, call{path: "sys/capabilities-self", body: body})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil {
		return nil, badReply(op)
	}
	found := make(map[string][]string, len(paths))
	for _, path := range paths {
		var of []string
		if err := json.Unmarshal(answer.Data[path], &of); err != nil {
			return nil, badReply(op)
		}
		found[path] = of
	}
	return found, nil
}
