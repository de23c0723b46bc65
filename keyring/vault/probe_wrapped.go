package vault

import (
	"context"
	"errors"
	"time"

	"github.com/envfs/envfs/keyring"
)

// Wrapping is what is known of a wrapping token without using it up.
type Wrapping struct {
	Path    string // of the request whose reply it wraps
	Expires time.Time
}

// Wrapped looks at the wrapping token of the options, if they have one; Login
// must not be called then.
func (p *Probe) Wrapped(ctx context.Context) (w Wrapping, wrapped bool, err error) {
	file := p.k.opts.WrappedSecretIDFile
	if p.method != MethodAppRole || file == "" {
		return w, false, nil
	}
	ctx, cancel := p.k.bounded(ctx)
	defer cancel()
	token, err := credentialOf(file)
	if err != nil {
		return w, true, err
	}
	client, err := p.k.session.anonymous()
	if err != nil {
		return w, true, err
	}
	reply, err := client.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": token})
	if err != nil {
		if err = loginError(client, err); errors.Is(err, keyring.ErrDenied) {
			err = denied(hintSpent, errSpent)
		}
		return w, true, err
	}
	if reply != nil {
		w.Path, _ = reply.Data["creation_path"].(string)
		created, _ := reply.Data["creation_time"].(string)
		if t, err := time.Parse(time.RFC3339Nano, created); err == nil {
			w.Expires = t.Add(time.Duration(seconds(reply.Data["creation_ttl"])) * time.Second)
		}
	}
	return w, true, nil
}
