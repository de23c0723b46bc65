package volume

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/envfs/envfs/crypto"
)

// An unsealed header states how many bytes from the beginning were durable when it was written, or fewer. In a file that is
// unsealed because its writer died, a block behind them may never have been synced, and when the power failed in the middle
// of writing it, it is neither the old one, which was not there, nor the new one. Such a block reads as zeros, as on
// other file systems; in front of that size, and in a sealed file, it would be damage. See doc/format.md, 5.6.

const (
	// vouchStep is by how many bytes a file has to grow, durably, before a sync writes that into its header.
	vouchStep = 1 << 20
	// tornCheck bounds the bytes that are read before a file with such blocks is sealed again.
	tornCheck = 1 << 30
)

// tornTail is the part of a file in which blocks may be torn.
type tornTail struct {
	from atomic.Int64 // the first such block; wholeFile: there is none
	once sync.Once    // of the message
}

// at reports whether a block that fails with err may be one that was never written to its end.
func (t *tornTail) at(block int64, err error) bool {
	var bad *crypto.BlockError
	return block >= t.from.Load() && errors.As(err, &bad)
}

func (f *File) noteTorn(block int64) {
	f.torn.once.Do(func() {
		f.v.log.Warn("a block that was being written when the machine crashed, and was never synced, reads as zeros",
			"file_id", f.key.id, "block", block)
	})
}

// errTornBlocks says why a file is not sealed: the seal would make damage of its torn blocks.
var errTornBlocks = errors.New("it has blocks that were being written when the machine crashed; envfs verify --repair makes holes of them")

// checkTorn makes sure that a file of size bytes has no torn blocks, or none any more. The caller makes sure that nobody changes it.
func (f *File) checkTorn(size int64) error {
	from := f.torn.from.Load()
	end := blocksFor(size)
	if from >= end {
		return nil
	}
	if end-from > tornCheck/crypto.BlockSize {
		return fmt.Errorf("so much of it was never synced that envfs verify --repair has to read it first: %w", errTornBlocks)
	}
	b := f.v.buffers.chunk()
	defer f.v.buffers.putChunk(b)
	plain := make([]byte, chunkBlocks*crypto.BlockSize)
	holes := f.extents.zeroPolicy()
	for block := from; block < end; block += chunkBlocks {
		last := min(block+chunkBlocks, end)
		sealed := (*b)[:f.sealedBetween(block, last, size)]
		n, err := f.v.store.ReadAt(f.FD(), sealed, f.v.layout.BlockOffset(block))
		if err != nil {
			return err
		}
		if _, err := f.key.content.OpenBlocks(plain, sealed[:n], uint64(block), holes); err != nil || n < len(sealed) {
			return errTornBlocks
		}
	}
	return nil
}

// reach is how far a file reaches at some moment, and how often it had been cut by then.
type reach struct {
	size int64
	cuts int
}

// reach returns what a sync that begins now makes durable.
func (f *File) reach() reach {
	f.header.mu.Lock()
	defer f.header.mu.Unlock()
	return reach{f.extents.written(), f.header.cuts}
}

// noteDurable is called after a sync of what reach returned.
func (f *File) noteDurable(r reach) {
	h := &f.header
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cuts == r.cuts {
		h.durable = max(h.durable, r.size)
	}
}

// mayVouch reports whether so much has become durable since the header was written that it had better say so. In a file with
// torn blocks, what is durable is not one piece.
func (f *File) mayVouch() bool {
	h := &f.header
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.get() == headerUnsealed && h.durable-h.vouched.Load() >= vouchStep && f.torn.from.Load() == wholeFile
}

// syncBacking makes the backing file durable, and with it, if vouch is set, a header that says what was durable before. A header
// that spoke of what is being synced could reach the disk first.
func (f *File) syncBacking(dataOnly, vouch bool) error {
	if !vouch {
		return f.v.store.Sync(f.FD(), dataOnly)
	}
	h := &f.header
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.get() != headerUnsealed || h.durable <= h.vouched.Load() {
		return f.v.store.Sync(f.FD(), dataOnly)
	}
	if err := f.lockHeader(); err != nil {
		return err
	}
	defer f.unlockHeader()
	return f.vouch(make([]byte, f.v.layout.HeaderSize()), h.durable, dataOnly)
}
