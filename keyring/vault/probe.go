package vault

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// Probe looks at a server, a login and a key one by one, to say which of them is
// wrong. Open does the same at once, and stops at the first failure.
type Probe struct {
	k      *Keyring
	method Method
}

// NewProbe makes a probe; nothing is sent yet. Without a Key in the options,
// Key and Grants must not be called.
func NewProbe(o Options) (*Probe, error) {
	o.setDefaults()
	if o.Key != "" {
		if err := checkPath(o.Mount, o.Key); err != nil {
			return nil, err
		}
	}
	method, err := o.method()
	if err != nil {
		return nil, err
	}
	k, err := newKeyring(o)
	if err != nil {
		return nil, err
	}
	return &Probe{k: k, method: method}, nil
}

// Close revokes the token, if Login has made one, and forgets it.
func (p *Probe) Close() {
	if p.k.client.Token() != "" && p.method != MethodToken {
		ctx, cancel := p.k.bounded(context.Background())
		defer cancel()
		// Should it fail, the token runs out by itself.
		_, _ = p.k.send(ctx, "revoke token", call{path: "auth/token/revoke-self", body: []byte("{}")})
	}
	p.k.session.close()
}

// Address is where requests go, as it was given.
func (p *Probe) Address() string { return p.k.address }

// Method is how Login logs in, for people.
func (p *Probe) Method() string { return p.k.session.method.String() }

// UsesTokenOf reports whether the token comes from somewhere else, so that
// nothing but its renewal keeps it alive.
func (p *Probe) UsesTokenOf() bool { return p.method == MethodToken }

// Login logs in, once. It would use up a wrapped secret ID: see Wrapped.
func (p *Probe) Login(ctx context.Context) error {
	ctx, cancel := p.k.bounded(ctx)
	defer cancel()
	return p.k.session.login(ctx)
}

// TokenInfo is what a token says of itself.
type TokenInfo struct {
	TTL       time.Duration // 0: it does not expire
	Renewable bool
	Uses      int // that are left; 0: no limit
	Policies  []string
}

// Root reports whether the token may do anything.
func (t TokenInfo) Root() bool { return slices.Contains(t.Policies, "root") }

// Token looks the token up. It needs the policy "default".
func (p *Probe) Token(ctx context.Context) (TokenInfo, error) {
	ctx, cancel := p.k.bounded(ctx)
	defer cancel()
	const op = "look up the token"
	body, err := p.k.request(ctx, op, call{path: "auth/token/lookup-self"})
	if err != nil {
		return TokenInfo{}, err
	}
	var reply struct {
		Data struct {
			TTL       int      `json:"ttl"` // seconds
			Renewable bool     `json:"renewable"`
			Uses      int      `json:"num_uses"`
			Policies  []string `json:"policies"`
			Identity  []string `json:"identity_policies"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return TokenInfo{}, badReply(op)
	}
	d := reply.Data
	return TokenInfo{
		TTL: time.Duration(d.TTL) * time.Second, Renewable: d.Renewable, Uses: d.Uses,
		Policies: append(d.Policies, d.Identity...),
	}, nil
}

// Key reads the properties of the key.
func (p *Probe) Key(ctx context.Context) (KeyInfo, error) { return p.k.KeyInfo(ctx) }

// Usable says why a key with these properties cannot be used with the options,
// or nil.
func (p *Probe) Usable(i KeyInfo) error { return i.check(p.k.opts) }

// Grant is a need and what the token is allowed at its path.
type Grant struct {
	Need
	Granted []string // such as "read", "update", "root", "deny"
}

// Missing lists the capabilities that the need lacks.
func (g Grant) Missing() []string {
	var missing []string
	for _, c := range g.Capabilities {
		if !slices.Contains(g.Granted, c) && !slices.Contains(g.Granted, "root") {
			missing = append(missing, c)
		}
	}
	return missing
}

// Grants asks what the token may do of what a role needs.
func (p *Probe) Grants(ctx context.Context, r Role) ([]Grant, error) {
	ctx, cancel := p.k.bounded(ctx)
	defer cancel()
	needs := r.Needs(p.k.opts.Mount, p.k.opts.Key)
	paths := make([]string, len(needs))
	for i, n := range needs {
		paths[i] = n.Path
	}
	found, err := p.k.capabilities(ctx, paths)
	if err != nil {
		return nil, err
	}
	grants := make([]Grant, len(needs))
	for i, n := range needs {
		grants[i] = Grant{n, found[n.Path]}
	}
	return grants, nil
}
