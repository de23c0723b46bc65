package keyring

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/envfs/envfs/internal/secret"
)

// Meter counts what is asked of a key service and how long its answers take.
// It holds a fixed amount of memory. It is safe for concurrent use.
type Meter struct {
	mu  sync.Mutex
	ops [len(opNames)]opMeter // by the constants below; guarded by mu
}

// What is asked of a key service, as indices of Meter.ops.
const (
	opWrap = iota
	opUnwrap
	opRewrap
	opVersion
)

var opNames = [...]string{opWrap: "wrap", opUnwrap: "unwrap", opRewrap: "rewrap", opVersion: "version"}

// OpStats say what was asked in one kind of request since the meter was made.
type OpStats struct {
	Op       string // wrap, unwrap, rewrap or version
	Requests uint64 // that have ended
	Items    uint64 // in all of them
	Errors   ErrorCounts
	Latency  Latency
}

// ErrorCounts count failures by class. A request that failed counts once, and so
// does each item that failed in a request that did not.
type ErrorCounts struct {
	Denied, Revoked, Unreachable, Corrupt, Config uint64

	Cancelled uint64 // given up by the caller
	Other     uint64 // without a class: a mistake of the program
}

// Total returns the sum of all but those that the caller gave up.
func (c ErrorCounts) Total() uint64 {
	return c.Denied + c.Revoked + c.Unreachable + c.Corrupt + c.Config + c.Other
}

// Observe returns a keyring that does what kr does, and a meter that counts it.
// The keyring is a [Rewrapper] and a [VersionReader] if kr is.
func Observe(kr Keyring) (Keyring, *Meter) {
	m := &Meter{}
	o := &observed{kr: kr, meter: m}
	rewrapper, rewraps := kr.(Rewrapper)
	reader, reads := kr.(VersionReader)
	r := observedRewrapper{rewrapper, m}
	v := observedVersions{reader, m}
	switch {
	case rewraps && reads:
		return struct {
			*observed
			observedRewrapper
			observedVersions
		}{o, r, v}, m
	case rewraps:
		return struct {
			*observed
			observedRewrapper
		}{o, r}, m
	case reads:
		return struct {
			*observed
			observedVersions
		}{o, v}, m
	}
	return o, m
}

// Stats returns a snapshot, one entry for each kind of request, always in the
// same order.
func (m *Meter) Stats() []OpStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	stats := make([]OpStats, len(opNames))
	for i := range m.ops {
		o := &m.ops[i]
		stats[i] = OpStats{
			Op: opNames[i], Requests: o.requests, Items: o.items, Errors: o.errors,
			Latency: o.latency.summary(time.Now()),
		}
	}
	return stats
}

// opMeter counts one kind of request.
type opMeter struct {
	requests, items uint64
	errors          ErrorCounts
	latency         latencies
}

// count notes a request that began at start and has ended now, and the errors of
// the request or of its items. Those may be nil.
func (m *Meter) count(op int, start time.Time, items int, err error, itemErrs ...error) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &m.ops[op]
	o.requests++
	o.items += uint64(items)
	o.errors.add(err)
	for _, e := range itemErrs {
		o.errors.add(e)
	}
	o.latency.add(now, now.Sub(start))
}

func (c *ErrorCounts) add(err error) {
	if err == nil {
		return
	}
	switch class := Class(err); {
	case class == ErrDenied:
		c.Denied++
	case class == ErrRevoked:
		c.Revoked++
	case class == ErrUnreachable:
		c.Unreachable++
	case class == ErrCorrupt:
		c.Corrupt++
	case class == ErrConfig:
		c.Config++
	case errors.Is(err, context.Canceled):
		c.Cancelled++
	default:
		c.Other++
	}
}

// observed counts what every keyring does.
type observed struct {
	kr    Keyring
	meter *Meter
}

func (o *observed) Wrap(ctx context.Context, keys []*secret.Key) ([]Wrapped, error) {
	start := time.Now()
	results, err := o.kr.Wrap(ctx, keys)
	o.meter.count(opWrap, start, len(keys), err)
	return results, err
}

func (o *observed) Unwrap(ctx context.Context, wrapped []Wrapped) ([]Unwrapped, error) {
	start := time.Now()
	results, err := o.kr.Unwrap(ctx, wrapped)
	var failed []error
	for _, r := range results {
		if r.Err != nil {
			failed = append(failed, r.Err)
		}
	}
	o.meter.count(opUnwrap, start, len(wrapped), err, failed...)
	return results, err
}

type observedRewrapper struct {
	rewrapper Rewrapper
	rewraps   *Meter
}

func (o observedRewrapper) Rewrap(ctx context.Context, wrapped []Wrapped) ([]Rewrapped, error) {
	start := time.Now()
	results, err := o.rewrapper.Rewrap(ctx, wrapped)
	var failed []error
	for _, r := range results {
		if r.Err != nil {
			failed = append(failed, r.Err)
		}
	}
	o.rewraps.count(opRewrap, start, len(wrapped), err, failed...)
	return results, err
}

type observedVersions struct {
	reader   VersionReader
	versions *Meter
}

func (o observedVersions) LatestVersion(ctx context.Context) (int, error) {
	start := time.Now()
	version, err := o.reader.LatestVersion(ctx)
	o.versions.count(opVersion, start, 0, err)
	return version, err
}
