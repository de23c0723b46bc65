// Package vault is the keyring over the Transit engine of HashiCorp Vault or
// OpenBao. The key-encryption key never leaves the server; each version of it is
// the N of the wrapped keys "vault:vN:…".
//
// # Protocol
//
// Requests are batches of at most [keyring.DefaultBatch] items, the server's
// default cap, to transit/encrypt, transit/decrypt and transit/rewrap. Each
// item's error is looked at, whatever the HTTP status. Transit's associated_data
// is not used, because no server can rewrap such ciphertexts; a key and its file
// are bound by the payload's content. A context is sent only for keys made with
// derived=true, where it is required; elsewhere it would be ignored.
//
// # Failures
//
// This package retries by itself, with backoff and within the caller's
// deadline, what may pass: no connection, 412, 429 and 5xx. The client library's
// own retries are off: they would hold a file operation for minutes. All other
// answers are final and mapped to the classes of package keyring in errors.go.
// On a 403 it asks auth/token/lookup-self whether the token has died, logs in
// again if so, and repeats the request once.
//
// # What cannot be wiped
//
// Keys travel as base64 in JSON. The buffers of this package are wiped: request
// bodies, response bodies, decoded plaintexts. Copies that net/http, crypto/tls
// and the kernel make on the way cannot be reached.
package vault

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Options say which key of which server, and how to log in.
//
// Without a Method, the login is the first of these that is set: TokenFile, RoleID
// or RoleIDFile, the environment's VAULT_TOKEN, and the token that `vault login`
// left with the token helper (~/.vault-token).
type Options struct {
	Arena *secret.Arena // for unwrapped keys

	Address   string // such as https://vault:8200 or unix:///run/agent.sock; empty: VAULT_ADDR
	Namespace string // empty: VAULT_NAMESPACE
	Mount     string // path of the Transit engine; empty: transit
	Key       string // name of the Transit key

	// Context is sent for a key made with derived=true: the volume ID.
	Context []byte

	// Files with credentials are read again at each login.
	Method              Method // how to log in
	TokenFile           string // token
	RoleID              string // AppRole
	RoleIDFile          string // AppRole: instead of RoleID
	SecretIDFile        string // AppRole
	WrappedSecretIDFile string // AppRole: instead of SecretIDFile; holds a wrapping token
	Role                string // Kubernetes: needed; cert: may be empty
	ServiceAccountFile  string // Kubernetes: the service account's token; empty: the pod's own
	Username            string // userpass
	PasswordFile        string // userpass
	AuthMount           string // path of the login method; empty: its own name

	// Wait bounds each call, its retries and a login included, if the caller's
	// context has no earlier deadline. Default 10 s.
	Wait time.Duration
	Log  *slog.Logger // nil discards
}

func (o *Options) setDefaults() {
	if o.Mount = strings.Trim(o.Mount, "/"); o.Mount == "" {
		o.Mount = "transit"
	}
	if o.Wait <= 0 {
		o.Wait = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// checkPath refuses what would lead elsewhere as a part of a path: a slash, dots.
func checkPath(mount, key string) error {
	for _, part := range append(strings.Split(mount, "/"), key) {
		if part == "" || part == "." || part == ".." || strings.IndexFunc(part, notPathRune) >= 0 {
			return configError("", "%q is no path of a Transit key", mount+"/keys/"+key)
		}
	}
	return nil
}

// notPathRune reports what Vault's names of keys do not have, and a mount's path
// does not need.
func notPathRune(r rune) bool {
	alphanumeric := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !alphanumeric && !strings.ContainsRune("-_. ", r)
}

// Keyring wraps keys by a Transit key. It is safe for concurrent use.
type Keyring struct {
	opts    Options
	client  *api.Client // for batches: no timeout of its own, see request
	address string      // as it was given, for people
	session *session
	info    KeyInfo // as of Open
	known   bool    // info could be read
}

var (
	_ keyring.Keyring       = (*Keyring)(nil)
	_ keyring.Rewrapper     = (*Keyring)(nil)
	_ keyring.VersionReader = (*Keyring)(nil)
)

// Open logs in, reads the key's properties, and keeps the login alive in the
// background until Close. A token that may not read the properties is accepted.
// A key or mount that does not exist is [keyring.ErrConfig] with a hint; Open
// never creates one.
func Open(ctx context.Context, o Options) (*Keyring, error) {
	o.setDefaults()
	if err := checkPath(o.Mount, o.Key); err != nil {
		return nil, err
	}
	k, err := newKeyring(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	if err := k.retry(ctx, "log in to vault", k.session.login); err != nil {
		return nil, err
	}
	if err := k.checkKey(ctx); err != nil {
		return nil, err
	}
	k.session.start()
	return k, nil
}

// newKeyring makes a keyring that has not logged in yet.
func newKeyring(o Options) (*Keyring, error) {
	control, data, err := newClients(o)
	if err != nil {
		return nil, err
	}
	method, err := newLogin(o, control)
	if err != nil {
		return nil, err
	}
	return &Keyring{opts: o, client: data, address: addressOf(control), session: newSession(control, data, method, o.Log)}, nil
}

// Close ends the background renewal. The token is left to live out its time: it
// may be shared with others.
func (k *Keyring) Close() { k.session.close() }

// bounded puts the option's bound on a call.
func (k *Keyring) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, k.opts.Wait)
}

// checkKey reads the key's properties and refuses a key that cannot do the
// work. Encrypting to a key that does not exist may create one, so a token that
// may not read the properties asks by a decryption that must fail.
func (k *Keyring) checkKey(ctx context.Context) error {
	info, err := k.KeyInfo(ctx)
	switch {
	case err == nil:
		k.info, k.known = info, true
		return info.check(k.opts)
	case !errors.Is(err, keyring.ErrDenied):
		return err
	}
	k.opts.Log.Debug("the token may not read the key's properties", "key", k.opts.Key)
	_, err = k.batch(ctx, decrypt, []item{{wrapped: "vault:v1:AAAA"}})
	if errors.Is(err, keyring.ErrRevoked) { // of the whole request: the key is not there
		return k.missingKey()
	}
	if errors.Is(err, keyring.ErrUnreachable) || errors.Is(err, keyring.ErrConfig) {
		return err
	}
	return nil
}
