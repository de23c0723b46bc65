package keyring

import (
	"math"
	"time"
)

// Latency says how long requests took.
type Latency struct {
	// Of the requests that ended in the last minutes, which Window counts: half
	// of them took no longer than P50, and so on. 0 if there were none. They are
	// exact to a fifth between 100 µs and a minute.
	P50, P90, P99 time.Duration
	Window        uint64

	Sum time.Duration // of all requests since the meter was made

	// Buckets count all requests since then by how long they took.
	Buckets []LatencyBucket
}

// LatencyBucket counts the requests that took no longer than Bound, those of
// the buckets before included.
type LatencyBucket struct {
	Bound time.Duration
	Count uint64
}

const (
	// Bucket i holds what took longer than bound(i-1) and no longer than
	// bound(i); the bounds double with each four.
	firstBound  = 100 * time.Microsecond
	perDoubling = 4
	bucketCount = 80 // the last bound is 88 s; what took longer counts there too

	// Quantiles are those of the slice of time that is running and of the full
	// ones before it.
	sliceTime  = time.Minute
	sliceCount = 5
)

func bound(i int) time.Duration {
	return time.Duration(float64(firstBound) * math.Pow(2, float64(i)/perDoubling))
}

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	if d <= firstBound {
		return 0
	}
	i := int(math.Ceil(perDoubling * math.Log2(float64(d)/float64(firstBound))))
	return min(i, bucketCount-1)
}

type histogram [bucketCount]uint64

// latencies keep durations in exponential buckets: all of them, and those of the
// last minutes in a ring of slices.
type latencies struct {
	all    histogram
	sum    time.Duration
	recent [sliceCount]histogram
	slice  int       // of recent, that is running
	since  time.Time // when it began; zero before the first request
}

// add takes a duration at the time now. Times must not go back.
func (l *latencies) add(now time.Time, d time.Duration) {
	l.advance(now)
	i := bucketOf(d)
	l.all[i]++
	l.recent[l.slice][i]++
	l.sum += d
}

// advance empties slices that are too old.
func (l *latencies) advance(now time.Time) {
	if l.since.IsZero() {
		l.since = now
		return
	}
	passed := now.Sub(l.since) / sliceTime
	l.since = l.since.Add(passed * sliceTime)
	for range min(passed, sliceCount) {
		l.slice = (l.slice + 1) % sliceCount
		l.recent[l.slice] = histogram{}
	}
}

func (l *latencies) summary(now time.Time) Latency {
	if !l.since.IsZero() {
		l.advance(now)
	}
	var window histogram
	for _, h := range l.recent {
		for i, n := range h {
			window[i] += n
		}
	}
	s := Latency{Sum: l.sum, P50: window.quantile(0.5), P90: window.quantile(0.9), P99: window.quantile(0.99)}
	for _, n := range window {
		s.Window += n
	}
	var count uint64
	for i, n := range l.all {
		count += n
		s.Buckets = append(s.Buckets, LatencyBucket{bound(i), count})
	}
	return s
}

// quantile returns the duration that the given part of all do not exceed, taken
// to be spread evenly within their bucket.
func (h *histogram) quantile(part float64) time.Duration {
	var total uint64
	for _, n := range h {
		total += n
	}
	rank := part * float64(total)
	var below float64
	for i, n := range h {
		if n == 0 {
			continue
		}
		if below+float64(n) < rank {
			below += float64(n)
			continue
		}
		var low time.Duration
		if i > 0 {
			low = bound(i - 1)
		}
		return low + time.Duration((rank-below)/float64(n)*float64(bound(i)-low))
	}
	return 0
}
