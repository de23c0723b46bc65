package fusedev

import (
	"testing"
	"time"
)

const us = time.Microsecond

func TestPatienceFollowsRequests(t *testing.T) {
	p := patience{limit: longestPatience}
	want := func(when string, d time.Duration) {
		t.Helper()
		if got := p.allowed(0); got != d {
			t.Errorf("%s: patience of %v, want %v", when, got, d)
		}
	}
	want("at first", 0)
	p.waited(longestPatience) // asleep, but the request came soon
	want("after a close request", firstPatience)
	for range 3 {
		p.waited(5 * us)
	}
	want("after four", 8*firstPatience)
	p.waited(5 * us)
	want("after many", longestPatience)
	p.waited(longestPatience + us)
	want("after a late one", longestPatience/2)
	for range 3 {
		p.waited(time.Second)
	}
	want("when requests are rare", 0)
}

func TestNoPatienceWithoutLimit(t *testing.T) {
	var p patience
	for range 5 {
		p.waited(us)
	}
	if got := p.allowed(0); got != 0 {
		t.Errorf("patience of %v where there is only one processor", got)
	}
}

// TestPatienceRefrains: whoever has the processor taken away again and again asks for ever shorter a part of the time.
func TestPatienceRefrains(t *testing.T) {
	p := patience{limit: longestPatience, now: longestPatience}
	now := time.Second
	refrained := func() (d time.Duration) {
		start := now
		for p.allowed(now) == 0 {
			now += 10 * us
		}
		return now - start
	}
	p.disturbed(now, time.Millisecond)
	first := refrained()
	if first < 4*time.Millisecond-10*us || first > 4*time.Millisecond+10*us {
		t.Errorf("refrained for %v after a disturbance of 1 ms, want 4 times that", first)
	}
	for range 12 {
		p.disturbed(now, time.Millisecond)
		refrained()
	}
	p.disturbed(now, time.Millisecond)
	if d := refrained(); d < mostRefrain-10*us || d > mostRefrain+10*us {
		t.Errorf("refrained for %v after many disturbances, want %v", d, mostRefrain)
	}
	now += 3 * mostRefrain
	p.disturbed(now, time.Millisecond)
	if d := refrained(); d > first+10*us {
		t.Errorf("refrained for %v after a long time in peace, want %v as at first", d, first)
	}
}
