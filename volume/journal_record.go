package volume

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/envfs/envfs/crypto"
)

// CrashJournal is the name of the journal in the root of a ciphertext directory. It exists while a volume is mounted
// read-write and something has been journaled, and after a mount that did not come to its end.
const CrashJournal = crypto.ReservedPrefix + "journal"

// The layout of the journal, in bytes; doc/format.md has the fields.
const (
	journalHeaderSize  = 80 // without its MAC
	journalHeaderSpace = 4096
	journalRecords     = 2 * journalHeaderSpace // where records begin: behind two header slots
	journalSector      = 512                    // records begin at multiples of it
	recordHeaderSize   = 80
	maxBlocks          = MaxSize / crypto.BlockSize
	maxRecordPayload   = chunkBlocks * crypto.CipherBlockSize
	maxJournalSize     = 64 << 20
	minJournalSize     = journalRecords + journalSector
)

const (
	journalMagic  = "ENVFSJH1"
	recordMagic   = "ENVFSJR1"
	journalFormat = 1
)

// recordKind says what a record means.
type recordKind uint16

const (
	recordWrite  recordKind = 1 // these blocks hold these bytes
	recordShrink recordKind = 2 // likewise, and the file ends with them
	recordRetire recordKind = 3 // the file is durable in place: what was recorded of it before is void
	recordHole   recordKind = 4 // these blocks are holes
)

// ErrJournal says that the journal is not one that this volume has written. What could be read of it was not used.
var ErrJournal = errors.New("the journal is forged, damaged or of another volume")

// errNoRecord says that what stands in the journal at some place is no record of its present generation: its end.
var errNoRecord = errors.New("no record")

// journalHeader says what records count: those of one generation, in a file with this inode number.
type journalHeader struct {
	generation uint64
	volume     crypto.ID
	inode      uint64 // of the journal itself: a copy of the volume is told by it
	size       int64  // of the journal in bytes
}

// encode returns the header with its MAC.
func (h *journalHeader) encode(mac *crypto.JournalMAC) []byte {
	b := make([]byte, journalHeaderSize, journalHeaderSize+crypto.JournalMACSize)
	copy(b, journalMagic)
	binary.BigEndian.PutUint16(b[8:], journalFormat)
	binary.BigEndian.PutUint64(b[16:], h.generation)
	copy(b[24:40], h.volume[:])
	binary.BigEndian.PutUint64(b[40:], h.inode)
	binary.BigEndian.PutUint64(b[48:], uint64(h.size))
	return mac.Append(b, b)
}

// place is where the header of a generation stands: generations take turns, so that the one before stays whole.
func (h *journalHeader) place() int64 { return int64(h.generation%2) * journalHeaderSpace }

// decodeJournalHeader reads what encode wrote. It fails with ErrJournal, or crypto.ErrNewerVersion.
func decodeJournalHeader(b []byte, mac *crypto.JournalMAC) (journalHeader, error) {
	if len(b) < journalHeaderSize+crypto.JournalMACSize || string(b[:8]) != journalMagic {
		return journalHeader{}, ErrJournal
	}
	fields := b[:journalHeaderSize]
	if !mac.Verify(fields, b[journalHeaderSize:journalHeaderSize+crypto.JournalMACSize]) {
		return journalHeader{}, ErrJournal
	}
	if version := binary.BigEndian.Uint16(b[8:]); version != journalFormat {
		return journalHeader{}, fmt.Errorf("journal of version %d: %w", version, crypto.ErrNewerVersion)
	}
	return journalHeader{
		generation: binary.BigEndian.Uint64(b[16:]),
		volume:     crypto.ID(b[24:40]),
		inode:      binary.BigEndian.Uint64(b[40:]),
		size:       int64(binary.BigEndian.Uint64(b[48:]) & (1<<63 - 1)),
	}, nil
}

// record is what a record of the journal says, without the bytes of its blocks.
type record struct {
	kind       recordKind
	generation uint64
	sequence   uint64 // 1 for the first of a generation
	file       crypto.ID
	inode      uint64 // of the backing file
	first      int64  // index of the first block
	time       int64  // when it was written, in nanoseconds since 1970
	payload    int    // bytes of its blocks, as they stand on disk
	hole       int64  // number of blocks of a recordHole, else 0
}

// size is how many bytes the record takes in the journal.
func (r *record) size() int64 { return recordSpace(r.payload) }

func recordSpace(payload int) int64 {
	n := int64(recordHeaderSize + payload + crypto.JournalMACSize)
	return (n + journalSector - 1) / journalSector * journalSector
}

// blocks is how many blocks the record holds.
func (r *record) blocks() int64 {
	return int64((r.payload + crypto.CipherBlockSize - 1) / crypto.CipherBlockSize)
}

// eof is the plaintext size of a file that ends with the record's blocks.
func (r *record) eof() int64 { return r.first*crypto.BlockSize + int64(crypto.OpenedLen(r.payload)) }

// encode appends the record with its blocks, its MAC and the zeros that fill its last sector to dst.
func (r *record) encode(dst, payload []byte, mac *crypto.JournalMAC) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, recordHeaderSize)...)
	b := dst[start:]
	copy(b, recordMagic)
	binary.BigEndian.PutUint16(b[8:], uint16(r.kind))
	binary.BigEndian.PutUint32(b[12:], uint32(len(payload)))
	binary.BigEndian.PutUint64(b[16:], r.generation)
	binary.BigEndian.PutUint64(b[24:], r.sequence)
	copy(b[32:48], r.file[:])
	binary.BigEndian.PutUint64(b[48:], r.inode)
	binary.BigEndian.PutUint64(b[56:], uint64(r.first))
	binary.BigEndian.PutUint64(b[64:], uint64(r.time))
	binary.BigEndian.PutUint64(b[72:], uint64(r.hole))
	dst = append(dst, payload...)
	dst = mac.Append(dst, dst[start:])
	end := start + int(recordSpace(len(payload)))
	for len(dst) < end {
		dst = append(dst, 0)
	}
	return dst
}

// peekRecord reads the fields of a record from its first recordHeaderSize bytes, within their bounds but not authenticated.
func peekRecord(b []byte) (record, error) {
	if len(b) < recordHeaderSize || string(b[:8]) != recordMagic {
		return record{}, errNoRecord
	}
	r := record{
		kind:       recordKind(binary.BigEndian.Uint16(b[8:])),
		generation: binary.BigEndian.Uint64(b[16:]),
		sequence:   binary.BigEndian.Uint64(b[24:]),
		file:       crypto.ID(b[32:48]),
		inode:      binary.BigEndian.Uint64(b[48:]),
		time:       int64(binary.BigEndian.Uint64(b[64:])),
	}
	payload, first := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint64(b[56:])
	hole := binary.BigEndian.Uint64(b[72:])
	if payload > maxRecordPayload || first > maxBlocks || hole > maxBlocks {
		return record{}, errNoRecord
	}
	r.payload, r.first, r.hole = int(payload), int64(first), int64(hole)
	switch tail := r.payload % crypto.CipherBlockSize; {
	case tail > 0 && tail <= crypto.BlockOverhead:
		return record{}, errNoRecord
	case r.kind == recordWrite && r.payload == 0:
		return record{}, errNoRecord
	case (r.kind == recordRetire || r.kind == recordHole) && r.payload != 0:
		return record{}, errNoRecord
	case (r.kind == recordHole) != (r.hole > 0):
		return record{}, errNoRecord
	case r.kind < recordWrite, r.kind > recordHole:
		return record{}, errNoRecord
	}
	return r, nil
}

// decodeRecord reads a record from the beginning of b and authenticates it. The bytes of its blocks are
// b[recordHeaderSize:][:r.payload].
func decodeRecord(b []byte, mac *crypto.JournalMAC) (record, error) {
	r, err := peekRecord(b)
	if err != nil {
		return record{}, err
	}
	end := recordHeaderSize + r.payload
	if len(b) < end+crypto.JournalMACSize || !mac.Verify(b[:end], b[end:end+crypto.JournalMACSize]) {
		return record{}, errNoRecord
	}
	return r, nil
}
