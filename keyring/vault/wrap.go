package vault

import (
	"context"
	"errors"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// service is the prefix of what Transit wraps.
const service = "vault"

const hintDeleted = "the transit key was deleted"

var errDeleted = errors.New("encryption key not found")

// Wrap implements [keyring.Keyring].
func (k *Keyring) Wrap(ctx context.Context, keys []*secret.Key) ([]keyring.Wrapped, error) {
	items := make([]item, len(keys))
	for i, key := range keys {
		items[i].key = key
	}
	results, err := k.batches(ctx, encrypt, items)
	if errors.Is(err, keyring.ErrDenied) {
		return nil, k.deniedOrDeleted(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	wrapped := make([]keyring.Wrapped, len(results))
	for i, r := range results {
		if r.err != nil {
			return nil, r.err
		}
		wrapped[i] = keyring.Wrapped(r.Ciphertext)
		if _, _, err := wrapped[i].Parse(service); err != nil {
			return nil, badReply("encrypt")
		}
	}
	return wrapped, nil
}

// deniedOrDeleted explains a refused encryption. A token that may update but not
// create, as it should be, is denied when the key is gone.
func (k *Keyring) deniedOrDeleted(ctx context.Context, refusal error) error {
	if _, err := k.KeyInfo(ctx); !errors.Is(err, keyring.ErrConfig) {
		return refusal
	}
	return &keyring.Error{Class: keyring.ErrRevoked, Op: string(encrypt), Hint: hintDeleted, Err: errDeleted}
}

// Unwrap implements [keyring.Keyring].
func (k *Keyring) Unwrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Unwrapped, error) {
	out := make([]keyring.Unwrapped, len(wrapped))
	items, places := plausible(wrapped, func(i int, err error) { out[i].Err = err })
	results, err := k.batches(ctx, decrypt, items)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		out[places[i]] = k.unwrapped(r)
	}
	return out, nil
}

var errPayload = errors.New("it holds no payload of a size that envfs wraps")

func (k *Keyring) unwrapped(r result) keyring.Unwrapped {
	if r.err != nil {
		return keyring.Unwrapped{Err: r.err}
	}
	if n := len(r.Plaintext); n < 1 || n > secret.MaxSize {
		secret.Wipe(r.Plaintext)
		return keyring.Unwrapped{Err: &keyring.Error{Class: keyring.ErrCorrupt, Op: "decrypt", Err: errPayload}}
	}
	return keyring.Unwrapped{Key: k.opts.Arena.Take(r.Plaintext)}
}

// Rewrap implements [keyring.Rewrapper]. Items at the newest version are not
// sent, if the token may read which one that is: Transit would encrypt them anew.
func (k *Keyring) Rewrap(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Rewrapped, error) {
	if len(wrapped) == 0 {
		return nil, nil
	}
	newest, err := k.LatestVersion(ctx)
	if err != nil && !errors.Is(err, keyring.ErrDenied) {
		return nil, err
	}
	out := make([]keyring.Rewrapped, len(wrapped))
	var old []keyring.Wrapped
	var oldPlaces []int
	for i, w := range wrapped {
		if version, _, err := w.Parse(service); err == nil && version == newest {
			out[i].Wrapped = w
			continue
		}
		old = append(old, w)
		oldPlaces = append(oldPlaces, i)
	}
	items, places := plausible(old, func(i int, err error) { out[oldPlaces[i]].Err = err })
	results, err := k.batches(ctx, rewrap, items)
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		out[oldPlaces[places[i]]] = rewrapped(old[places[i]], r)
	}
	return out, nil
}

func rewrapped(from keyring.Wrapped, r result) keyring.Rewrapped {
	if r.err != nil {
		return keyring.Rewrapped{Err: r.err}
	}
	to := keyring.Wrapped(r.Ciphertext)
	version, _, err := to.Parse(service)
	if err != nil {
		return keyring.Rewrapped{Err: badReply("rewrap")}
	}
	if was, _ := from.Version(); was == version {
		to = from // it was current already
	}
	return keyring.Rewrapped{Wrapped: to}
}

// plausible picks the items that have the form of a Transit ciphertext and
// their places, and reports the others. The server would refuse those, too, but
// some of them, such as an empty one, with the whole batch.
func plausible(wrapped []keyring.Wrapped, refuse func(i int, err error)) ([]item, []int) {
	items := make([]item, 0, len(wrapped))
	places := make([]int, 0, len(wrapped))
	for i, w := range wrapped {
		if _, _, err := w.Parse(service); err != nil {
			refuse(i, err)
			continue
		}
		items = append(items, item{wrapped: w})
		places = append(places, i)
	}
	return items, places
}
