package keyring

import (
	"testing"
	"time"
)

func TestLatencyBuckets(t *testing.T) {
	for i := range bucketCount {
		b := bound(i)
		if got := bucketOf(b); got != i {
			t.Errorf("%v is in bucket %d, want %d", b, got, i)
		}
		if got := bucketOf(b + 10); got != min(i+1, bucketCount-1) {
			t.Errorf("more than %v is in bucket %d", b, got)
		}
	}
	if bucketOf(0) != 0 || bucketOf(-1) != 0 || bucketOf(24*time.Hour) != bucketCount-1 {
		t.Error("the ends are wrong")
	}
	if last := bound(bucketCount - 1); last < time.Minute {
		t.Errorf("the last bound is %v", last)
	}
}

func TestQuantile(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	h[4] = 10 // 168 µs to 200 µs
	for part, want := range map[float64]time.Duration{
		0.5: (bound(3) + bound(4)) / 2, 1: bound(4),
	} {
		if got := h.quantile(part); got-want > 1 || want-got > 1 {
			t.Errorf("quantile %v is %v, want %v", part, got, want)
		}
	}
	h[9] = 1
	if got := h.quantile(0.99); got <= bound(8) || got > bound(9) {
		t.Errorf("%v", got)
	}
}
