package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// The waits between tries of one call.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
)

// maxReply bounds what is read of a reply: 128 items are far below.
const maxReply = 16 << 20

// call is one HTTP request: a write if it has a body, else a read.
type call struct {
	path string
	body []byte // the caller's, who wipes it
}

// retry runs try until it succeeds, gets a final answer, or there is no time
// left for another one. Its last error says why.
func (k *Keyring) retry(ctx context.Context, op string, try func(context.Context) error) error {
	var last error
	for failures := 1; ; failures++ {
		err := try(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return contextError(ctx, op, last)
		case !errors.Is(err, keyring.ErrUnreachable):
			return err
		}
		last = err
		wait := pause(failures, err)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return contextError(ctx, op, last)
		}
	}
}

// pause is the wait after so many failures: doubled each time up to maxPause,
// less a jitter of up to a half, but at least what the server asks for.
func pause(failures int, err error) time.Duration {
	d := min(firstPause<<min(failures-1, 10), maxPause)
	d -= time.Duration(rand.Int64N(int64(d) / 2))
	if a, ok := answerOf(err); ok {
		d = max(d, a.retryAfter)
	}
	return d
}

// request carries out a call, with retries and, if the token has died, a new
// login. The reply is the caller's to wipe. An error is of a class, but for an
// [answer] that holds the results of a batch.
func (k *Keyring) request(ctx context.Context, op string, c call) ([]byte, error) {
	var reply []byte
	loggedIn := false
	err := k.retry(ctx, op, func(ctx context.Context) error {
		token := k.client.Token()
		var err error
		reply, err = k.send(ctx, op, c)
		if a, ok := answerOf(err); ok && a.tokenMayHaveDied() && !loggedIn {
			loggedIn = true
			if err := k.session.revive(ctx, token, requestError(op, a)); err != nil {
				return err
			}
			reply, err = k.send(ctx, op, c)
		}
		if a, ok := answerOf(err); ok && (c.body == nil || !a.hasResults()) {
			return requestError(op, a)
		}
		return err
	})
	k.session.note(err)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// tokenMayHaveDied reports whether a new login may change the answer.
func (a *answer) tokenMayHaveDied() bool {
	return a.status == http.StatusForbidden || a.status == http.StatusUnauthorized || a.says("missing client token")
}

// hasResults reports whether the answer is that of a batch whose items failed.
func (a *answer) hasResults() bool {
	return bytes.Contains(a.body, []byte(`"batch_results"`))
}

// send makes one HTTP request. An answer that is no success is an *[answer].
//
// It uses the library's raw request, although that is deprecated: the others
// lose the body of an error, where the results of a batch stand, or that of a
// request that a standby redirects.
func (k *Keyring) send(ctx context.Context, op string, c call) ([]byte, error) {
	method := http.MethodGet
	if c.body != nil {
		method = http.MethodPost
	}
	req := k.client.NewRequest(method, "/v1/"+c.path)
	if c.body != nil {
		req.BodyBytes = c.body
		req.Obj = json.RawMessage(c.body) // what a redirect sends again
	}
	//lint:ignore SA1019 the calls that are not deprecated lose the body of an error or of a redirect
	resp, err := k.client.RawRequestWithContext(ctx, req)
	if resp != nil {
		defer resp.Body.Close()
	}
	if len(req.BodyBytes) > 0 && &req.BodyBytes[0] != &c.body[0] {
		secret.Wipe(req.BodyBytes) // the copy that a redirect made
	}
	var refused *api.ResponseError
	switch {
	case errors.As(err, &refused) && resp != nil:
		return nil, newAnswer(refused, resp)
	case err != nil:
		return nil, transportError(op, k.client, err)
	}
	body, err := readReply(resp.Body, resp.ContentLength)
	if err != nil {
		return nil, transportError(op, k.client, err)
	}
	return body, nil
}

func newAnswer(refused *api.ResponseError, resp *api.Response) *answer {
	a := &answer{status: refused.StatusCode, messages: refused.Errors}
	a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxReply)) // it is in memory already
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		a.retryAfter = time.Duration(min(seconds, 3600)) * time.Second
	}
	return a
}

var errTooLong = errors.New("the reply is too long")

// readReply reads a body of the announced size, or -1, without leaving copies of
// it behind.
func readReply(r io.Reader, announced int64) ([]byte, error) {
	buf := make([]byte, 0, min(max(announced+1, 4096), maxReply+1))
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			return buf, nil
		case err == nil && len(buf) > maxReply:
			err = errTooLong
		}
		if err != nil {
			secret.Wipe(buf)
			return nil, err
		}
		if len(buf) == cap(buf) {
			larger := append(make([]byte, 0, 2*cap(buf)), buf...)
			secret.Wipe(buf)
			buf = larger
		}
	}
}
