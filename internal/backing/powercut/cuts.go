package powercut

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// EachCut lets the power fail n times, at instants spread over the whole record, and hands visit what is on the disk then. The
// same seed gives the same instants and the same disks of the same record. It ends with the first error of visit, to which it
// adds what leads to it again.
func (l *Log) EachCut(seed uint64, n int, visit func(at int, disk *Image) error) error {
	rnd := rand.New(rand.NewPCG(seed, uint64(n)))
	instants := make([]int, n)
	for i := range instants {
		// One in each n-th part, so that no part is left out.
		lo, hi := i*(l.Len()+1)/n, max(i*(l.Len()+1)/n+1, (i+1)*(l.Len()+1)/n)
		instants[i] = lo + rnd.IntN(hi-lo)
	}
	slices.Sort(instants)
	r := l.Replay()
	for i, at := range instants {
		r.Forward(at)
		disk := r.Sample(rand.New(rand.NewPCG(seed, uint64(i))))
		if err := visit(at, disk); err != nil {
			var before strings.Builder
			l.WriteLog(&before, at-15, at)
			return fmt.Errorf("power cut %d of %d with seed %d, after %d of %d events (%v):\n%w\nthe last events:\n%s",
				i, n, seed, at, l.Len(), disk, err, &before)
		}
	}
	return nil
}
