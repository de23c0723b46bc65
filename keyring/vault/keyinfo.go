package vault

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/envfs/envfs/keyring"
)

// KeyInfo are the properties of a Transit key.
type KeyInfo struct {
	Type                 string `json:"type"`                   // such as aes256-gcm96
	LatestVersion        int    `json:"latest_version"`         // from 1
	MinDecryptionVersion int    `json:"min_decryption_version"` // below, keys are revoked
	Derived              bool   `json:"derived"`                // needs a context
	Exportable           bool   `json:"exportable"`             // the key can leave the server
	PlaintextBackup      bool   `json:"allow_plaintext_backup"` // likewise
	DeletionAllowed      bool   `json:"deletion_allowed"`       // one request can destroy all files
	SupportsEncryption   bool   `json:"supports_encryption"`
	SupportsDecryption   bool   `json:"supports_decryption"`
}

// AEAD reports whether what the key wraps is authenticated. For an RSA key,
// anyone who has the public key can wrap keys of his own.
func (i KeyInfo) AEAD() bool {
	switch i.Type {
	case "aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305":
		return true
	}
	return false
}

// check refuses a key that cannot wrap and unwrap, or not with these options.
func (i KeyInfo) check(o Options) error {
	if i.Derived && len(o.Context) == 0 {
		return configError("", "transit key %q was made with derived=true and needs a context", o.Key)
	}
	if i.SupportsEncryption && i.SupportsDecryption {
		return nil
	}
	return configError("use a key of type aes256-gcm96, Transit's default",
		"transit key %q of type %s cannot encrypt", o.Key, i.Type)
}

// KeyInfo reads the key's properties. It needs `read` on transit/keys/K.
func (k *Keyring) KeyInfo(ctx context.Context) (KeyInfo, error) {
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	body, err := k.request(ctx, "read transit key", call{path: k.path("keys")})
	if err != nil {
		if reply, ok := answerOf(err); ok && reply.status == 404 && len(reply.messages) == 0 {
			return KeyInfo{}, k.missingKey()
		}
		return KeyInfo{}, err
	}
	var reply struct{ Data KeyInfo }
	if err := json.Unmarshal(body, &reply); err != nil {
		return KeyInfo{}, badReply("read transit key")
	}
	return reply.Data, nil
}

// Info returns the key's properties as of Open, and whether the token was
// allowed to read them.
func (k *Keyring) Info() (info KeyInfo, known bool) { return k.info, k.known }

// LatestVersion implements [keyring.VersionReader]. It asks the server.
func (k *Keyring) LatestVersion(ctx context.Context) (int, error) {
	info, err := k.KeyInfo(ctx)
	return info.LatestVersion, err
}

// missingKey says that there is no such key, and how one is made.
func (k *Keyring) missingKey() error {
	hint := fmt.Sprintf("for a new volume, create it: vault write -f %s/keys/%s", k.opts.Mount, k.opts.Key)
	return configError(hint, "there is no key %q in the transit engine at %s/", k.opts.Key, k.opts.Mount)
}

func configError(hint, format string, args ...any) error {
	return &keyring.Error{Class: keyring.ErrConfig, Op: "vault", Hint: hint, Err: fmt.Errorf(format, args...)}
}

func badReply(op string) error {
	return &keyring.Error{Class: keyring.ErrUnreachable, Op: op, Err: errBadReply}
}
