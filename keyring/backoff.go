package keyring

import (
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
