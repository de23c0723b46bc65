package volume

import (
	"sync"

	"github.com/envfs/envfs/crypto"
)

// chunkBlocks is how many blocks one backing read or write moves at most: with the kernel's largest request, 1 MiB, and
// an edge on either side, one chunk is nearly always the whole request.
const chunkBlocks = 258

// buffers lends out ciphertext and plaintext scratch space, so that no request allocates any.
type buffers struct {
	chunks sync.Pool // *[]byte of chunkBlocks sealed blocks
	blocks sync.Pool // *[]byte of one plaintext block
}

func newBuffers() *buffers {
	return &buffers{
		chunks: sync.Pool{New: func() any { return newBuffer(chunkBlocks * crypto.CipherBlockSize) }},
		blocks: sync.Pool{New: func() any { return newBuffer(crypto.BlockSize) }},
	}
}

func newBuffer(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

func (b *buffers) chunk() *[]byte     { return b.chunks.Get().(*[]byte) }
func (b *buffers) putChunk(p *[]byte) { b.chunks.Put(p) }

// block returns a block of zeros.
func (b *buffers) block() *[]byte { return b.blocks.Get().(*[]byte) }

// putBlock takes a block back and wipes it: it held plaintext.
func (b *buffers) putBlock(p *[]byte) {
	clear(*p)
	b.blocks.Put(p)
}
