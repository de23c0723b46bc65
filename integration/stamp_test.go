package integration

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// stampSize is how much of a file one stamp says what it is: a page of the kernel, and a block of envfs.
const stampSize = 4096

// stamp is what a block of a self-describing file says, all over the block, so that no mixture of two blocks passes for one. A
// block of zeros, which is a hole, has the zero stamp.
type stamp struct{ file, block, generation uint64 }

func (s stamp) bytes() []byte {
	var words []byte
	for _, word := range []uint64{s.file, s.block, s.generation} {
		words = binary.BigEndian.AppendUint64(words, word)
	}
	return bytes.Repeat(words, stampSize/len(words)+1)[:stampSize]
}

// stampOf reads a block.
func stampOf(block []byte) (stamp, error) {
	if len(block) != stampSize {
		return stamp{}, fmt.Errorf("%d bytes are no block", len(block))
	}
	s := stamp{binary.BigEndian.Uint64(block), binary.BigEndian.Uint64(block[8:]), binary.BigEndian.Uint64(block[16:])}
	if want := s.bytes(); !bytes.Equal(block, want) {
		at := 0
		for block[at] == want[at] {
			at++
		}
		return s, fmt.Errorf("begins as block %d of file %x in generation %d, and differs from byte %d on: %x", s.block, s.file, s.generation, at, block[at:min(at+24, stampSize)])
	}
	return s, nil
}

// stamped is a file of so many blocks, all of one generation.
func stamped(file, blocks, generation uint64) []byte {
	var content []byte
	for i := range blocks {
		content = append(content, stamp{file, i, generation}.bytes()...)
	}
	return content
}
