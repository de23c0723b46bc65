package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"

	"golang.org/x/sync/errgroup"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// verb is one of Transit's operations on batches.
type verb string

const (
	encrypt verb = "encrypt"
	decrypt verb = "decrypt"
	rewrap  verb = "rewrap"
)

// maxParallel bounds the requests that one large call has under way.
const maxParallel = 4

// item is one input of a batch: a key to encrypt, or a ciphertext.
type item struct {
	key     *secret.Key
	wrapped keyring.Wrapped
}

// result is one output of a batch, as JSON has it. Plaintext is decoded into a
// buffer of its own, which whoever reads it wipes.
type result struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
	Error      string `json:"error"`

	err error // Error with its class
}

// batches runs a verb over any number of items, in requests of at most
// [keyring.DefaultBatch]. Results keep the order.
func (k *Keyring) batches(ctx context.Context, v verb, items []item) ([]result, error) {
	if err := ctx.Err(); err != nil {
		return nil, contextError(ctx, string(v), nil)
	}
	ctx, cancel := k.bounded(ctx)
	defer cancel()
	results := make([]result, len(items))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxParallel)
	for from := 0; from < len(items); from += keyring.DefaultBatch {
		to := min(from+keyring.DefaultBatch, len(items))
		group.Go(func() error {
			part, err := k.batchOrSingly(ctx, v, items[from:to])
			copy(results[from:to], part)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		wipeResults(results)
		return nil, err
	}
	return results, nil
}

// batchOrSingly runs one request. A server that refuses all of it because one
// item is bad (RSA keys do, for what does not decrypt) is asked item by item.
func (k *Keyring) batchOrSingly(ctx context.Context, v verb, items []item) ([]result, error) {
	results, err := k.batch(ctx, v, items)
	if !errors.Is(err, keyring.ErrCorrupt) {
		return results, err
	}
	results = make([]result, len(items))
	for i := range items {
		one, err := k.batch(ctx, v, items[i:i+1])
		switch {
		case err == nil:
			results[i] = one[0]
		case errors.Is(err, keyring.ErrCorrupt):
			results[i].err = err
		default:
			wipeResults(results)
			return nil, err
		}
	}
	return results, nil
}

// batch runs one request.
func (k *Keyring) batch(ctx context.Context, v verb, items []item) ([]result, error) {
	body := k.batchBody(v, items)
	defer secret.Wipe(body)
	reply, err := k.request(ctx, string(v), call{path: k.path(string(v)), body: body})
	defer secret.Wipe(reply)
	status := http.StatusOK
	if a, ok := answerOf(err); ok && keyring.Class(err) == nil {
		// Where every item failed, the results come with an error's status.
		reply, status, err = a.body, a.status, nil
	}
	if err != nil {
		return nil, err
	}
	results, ok := parseResults(reply, len(items))
	if !ok {
		return nil, badReply(string(v))
	}
	for i := range results {
		if msg := results[i].Error; msg != "" {
			results[i].err = k.itemError(v, status, msg)
			k.session.record.failed(results[i].err)
		}
	}
	return results, nil
}

func parseResults(body []byte, want int) ([]result, bool) {
	var reply struct {
		Data struct {
			Results []result `json:"batch_results"`
		} `json:"data"`
	}
	err := json.Unmarshal(body, &reply)
	if err != nil || len(reply.Data.Results) != want {
		wipeResults(reply.Data.Results)
		return nil, false
	}
	return reply.Data.Results, true
}

func wipeResults(results []result) {
	for i := range results {
		secret.Wipe(results[i].Plaintext)
	}
}

// batchBody writes the request. It is made by hand so that it is one buffer,
// which never moves while it grows and which the caller wipes: encoding/json
// would leave copies of the keys behind.
func (k *Keyring) batchBody(v verb, items []item) []byte {
	const perItem = len(`{"plaintext":"","ciphertext":"","context":""},`)
	size := 100 + len(items)*(perItem+base64.StdEncoding.EncodedLen(max(secret.MaxSize, len(k.opts.Context))))
	for _, it := range items {
		size += len(it.wrapped) + base64.StdEncoding.EncodedLen(len(k.opts.Context))
	}
	body := append(make([]byte, 0, size), `{"batch_input":[`...)
	for i, it := range items {
		if i > 0 {
			body = append(body, ',')
		}
		if v == encrypt {
			body = append(body, `{"plaintext":"`...)
			body = base64.StdEncoding.AppendEncode(body, it.key.Bytes())
		} else {
			// Checked to be base64 and a prefix: nothing there needs escaping.
			body = append(body, `{"ciphertext":"`...)
			body = append(body, it.wrapped...)
		}
		if k.info.Derived {
			body = append(body, `","context":"`...)
			body = base64.StdEncoding.AppendEncode(body, k.opts.Context)
		}
		body = append(body, `"}`...)
	}
	body = append(body, ']')
	if v != rewrap { // which does not know it, and does not need it
		body = append(body, `,"partial_failure_response_code":200`...)
	}
	return append(body, '}')
}

// path returns the path of an operation on the key.
func (k *Keyring) path(operation string) string {
	return k.opts.Mount + "/" + operation + "/" + k.opts.Key
}
