package volume

import "github.com/envfs/envfs/crypto"

// lastBlock is a copy of what the last block of a file holds while the file is made longer. The block is stored anew, at a
// greater length, so if the disk fails or fills up half-way it has to be stored again as it was.
type lastBlock struct {
	buf     *[]byte
	content []byte // nil if the file ends at a block's end, so that nothing is stored anew
}

// keepLast reads the last block of a file of eof bytes. The caller owns the block.
func (f *File) keepLast(eof int64) (lastBlock, error) {
	n := eof % crypto.BlockSize
	if n == 0 {
		return lastBlock{}, nil
	}
	l := f.copyLast(nil, int(n))
	if _, err := f.read(l.content, eof-n, eof); err != nil {
		f.dropLast(l)
		return lastBlock{}, err
	}
	return l, nil
}

// copyLast keeps n bytes, which begin with content.
func (f *File) copyLast(content []byte, n int) lastBlock {
	buf := f.v.buffers.block()
	copy((*buf)[:n], content)
	return lastBlock{buf: buf, content: (*buf)[:n]}
}

func (f *File) dropLast(l lastBlock) {
	if l.buf != nil {
		f.v.buffers.putBlock(l.buf)
	}
}

// growLast stores the last block again with zeros behind it, so that a file of eof bytes reaches to size, at most the end
// of that block. The caller owns the block.
func (f *File) growLast(l lastBlock, eof, size int64) error {
	if l.content == nil {
		return nil
	}
	block := eof / crypto.BlockSize
	length := min(size, (block+1)*crypto.BlockSize) - block*crypto.BlockSize
	return f.rewriteBlock((*l.buf)[:length], block, eof)
}

// restoreLast brings the backing file back to eof bytes, with the last block as it was. It is the way back from an error, so
// that an error of its own is only logged.
func (f *File) restoreLast(l lastBlock, eof int64) {
	if f.header.get() == headerNone {
		return
	}
	err := f.cut(l.content, eof)
	if err != nil && !begun(err) {
		// Without a record it is better than not at all: in the size that the file has now, the block could not be read.
		err = f.v.store.Truncate(f.FD(), f.v.layout.CipherSize(eof))
		if err == nil && l.content != nil {
			err = f.storeBlock(l.content, eof/crypto.BlockSize)
		}
	}
	if err != nil {
		f.v.log.Error("cannot bring a file back to its size after a failed write", "file_id", f.key.id, "size", eof, "error", err)
	}
}
