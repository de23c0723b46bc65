package keyring

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// backoff says how long to wait after a number of failures in a row: first,
// doubled each time up to limit, less a jitter of up to a quarter, so that many
// mounts do not come back to the service in step.
type backoff struct{ first, limit time.Duration }

// The defaults bring a mount back within 5 s of the service's return.
const (
	defaultRetryMin = 500 * time.Millisecond
	defaultRetryMax = 5 * time.Second
)

func (b backoff) pause(failures int) time.Duration {
	d := b.first
	for i := 1; i < failures && d < b.limit; i++ {
		d *= 2
	}
	d = min(d, b.limit)
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// insist asks until there is an answer or no time is left before the deadline of ctx: one question may give up earlier. Without
// a deadline the first result stands.
func insist[T any](ctx context.Context, op string, b backoff, ask func() (T, error)) (T, error) {
	for {
		result, err := ask()
		if !errors.Is(err, ErrUnreachable) || ctx.Err() != nil {
			return result, err
		}
		wait := b.pause(1)
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < wait {
			return result, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return result, ContextError(ctx, op)
		}
	}
}
