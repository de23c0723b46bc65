package volume

import (
	"runtime"
	"sync"

	"github.com/envfs/envfs/crypto"
)

// parallelBlocks is the smallest number of blocks that is worth a second core: below it, waking one costs more than the
// encryption that it would take over (about 1 µs a block against 10 to 50 µs).
const parallelBlocks = 32

// maxParts is into how many parts a request is cut at most: what the largest one, of chunkBlocks, is worth.
const maxParts = chunkBlocks / parallelBlocks

// parallel runs work over the blocks [0, count), cut into one part for each core if there are enough of them. It returns
// the sum of what the parts report up to the first error in block order, and that error.
func (v *Volume) parallel(count int, work func(lo, hi int) (int, error)) (int, error) {
	parts := min(runtime.GOMAXPROCS(0), count/parallelBlocks, maxParts)
	if parts < 2 {
		return work(0, count)
	}
	// One allocation for all of it, and one for each part: sync.WaitGroup.Go would make two of those.
	type result struct {
		n   int
		err error
	}
	var shared struct {
		results [maxParts]result
		wg      sync.WaitGroup
	}
	shared.wg.Add(parts - 1)
	for i := 1; i < parts; i++ {
		go func() {
			defer shared.wg.Done()
			shared.results[i].n, shared.results[i].err = work(i*count/parts, (i+1)*count/parts)
		}()
	}
	shared.results[0].n, shared.results[0].err = work(0, count/parts)
	shared.wg.Wait()
	total := 0
	for _, r := range shared.results[:parts] {
		total += r.n
		if r.err != nil {
			return total, r.err
		}
	}
	return total, nil
}

// sealBlocks encrypts plain, whose first byte starts block first, into dst, which is as long as the sealed blocks are.
func (f *File) sealBlocks(dst, plain []byte, first int64) {
	count := int(blocksFor(int64(len(plain))))
	// The work cannot fail: lengths are fixed by the caller and randomness never runs out.
	_, _ = f.v.parallel(count, func(lo, hi int) (int, error) {
		p := plain[lo*crypto.BlockSize : min(hi*crypto.BlockSize, len(plain))]
		d := dst[lo*crypto.CipherBlockSize : min(hi*crypto.CipherBlockSize, len(dst))]
		f.key.content.SealBlocks(d, p, uint64(first)+uint64(lo))
		return 0, nil
	})
}
