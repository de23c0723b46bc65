package fusedev

import "time"

// patience decides how long a reader asks for the next request before it sleeps. It grows while requests follow each other
// closely and shrinks when they do not, so that a mount that is used now and then does not burn a processor; and it is none
// for a while after somebody else turned out to want the processor.
//
// It belongs to the one reader that waits: there is never more than one.
type patience struct {
	limit time.Duration // what it may grow to; 0: always sleep at once

	now     time.Duration // what it is
	refrain time.Duration // how long it was none the last time that the processor was wanted
	resume  time.Duration // on the clock of the server: none before this time
}

const (
	// longestPatience is several times what waking a thread costs on the machines measured, 20 to 60 µs, since a program computes between
	// its requests. A mount spends at most this long for each request that comes at the worst moment.
	longestPatience = 200 * time.Microsecond
	// firstPatience is what it grows from.
	firstPatience = 20 * time.Microsecond
	// outOfTurn is the time between two looks after which somebody else had the processor. A look takes less than a microsecond.
	outOfTurn = 100 * time.Microsecond
	// mostRefrain bounds how long is slept at once after that.
	mostRefrain = time.Second
)

// allowed returns how long to ask at time now.
func (p *patience) allowed(now time.Duration) time.Duration {
	if now < p.resume {
		return 0
	}
	return p.now
}

// waited says that the next request came after d, asleep or not.
func (p *patience) waited(d time.Duration) {
	if d <= p.limit {
		p.now = min(max(2*p.now, firstPatience), p.limit)
		return
	}
	if p.now /= 2; p.now < firstPatience {
		p.now = 0
	}
}

// disturbed says that somebody else had the processor for d until now, while this reader was asking. Once may be chance; but
// where others want the processor all the time, asking is in their way, and giving way costs more than sleeping.
func (p *patience) disturbed(now, d time.Duration) {
	if now-p.resume > 2*p.refrain {
		p.refrain = 0 // long ago
	}
	p.refrain = min(max(2*p.refrain, 4*d), mostRefrain)
	p.resume = now + p.refrain
}
