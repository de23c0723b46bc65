package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

// FileInfo is what can be said of one ciphertext file without any key. Nothing
// in it is authenticated.
type FileInfo struct {
	Path           string      `json:"path"`
	CiphertextSize int64       `json:"ciphertext_size"` // bytes on disk
	PlaintextSize  int64       `json:"plaintext_size"`  // bytes, by the size on disk
	Slots          []SlotInfo  `json:"slots,omitempty"` // as far as they are there; none in an empty file
	Header         *HeaderInfo `json:"header,omitempty"`
	Problems       []string    `json:"problems,omitempty"` // a file without any may still be damaged
}

// SlotInfo is the state of one header slot.
type SlotInfo struct {
	Size       int    `json:"size"` // bytes
	Valid      bool   `json:"valid"`
	Current    bool   `json:"current"`           // the valid slot that counts
	Problem    string `json:"problem,omitempty"` // why it is not valid
	Sequence   uint64 `json:"sequence,omitempty"`
	KEKVersion int    `json:"kek_version,omitempty"` // 0: cannot be told
}

// HeaderInfo is what the current slot says.
type HeaderInfo struct {
	Suite      uint8     `json:"suite"`
	BlockSize  int       `json:"block_size"` // bytes of plaintext
	Sealed     bool      `json:"sealed"`
	Sparse     bool      `json:"sparse"`
	VolumeID   crypto.ID `json:"volume_id"`
	FileID     crypto.ID `json:"file_id"`
	KEKVersion int       `json:"kek_version"` // 0: cannot be told
	SealedSize *uint64   `json:"sealed_size"` // bytes of plaintext; null unless sealed
}

// maxHeader bounds what InspectFile reads.
const maxHeader = 2 * crypto.LargeSlot

// InspectFile reads the header of the ciphertext file at path, and no more. A
// symbolic link is not followed, and anything but a regular file is refused
// with ErrNotRegular. A damaged header is no error but a problem in the result.
func InspectFile(path string) (FileInfo, error) {
	info := FileInfo{Path: path}
	f, st, err := openRegular(path)
	if err != nil {
		return info, err
	}
	header := make([]byte, min(maxHeader, max(st.Size(), 0)))
	n, err := io.ReadFull(f, header)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil // it has become shorter meanwhile, or was empty
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return info, err
	}
	info.CiphertextSize = st.Size()
	info.inspect(header[:n])
	return info, nil
}

// openRegular opens path for reading if it is a regular file. A look comes
// before the open, since opening a device may act on it.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if st, err = f.Stat(); err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

func (info *FileInfo) problem(format string, args ...any) {
	info.Problems = append(info.Problems, fmt.Sprintf(format, args...))
}

// inspect fills info from the first bytes of a file.
func (info *FileInfo) inspect(header []byte) {
	if len(header) == 0 {
		return
	}
	size := guessSlotSize(header)
	plain, err := crypto.Layout{SlotSize: int64(size)}.PlainSize(info.CiphertextSize)
	if err != nil {
		info.problem("%v", err)
	}
	info.PlaintextSize = plain
	header = header[:min(len(header), 2*size)]
	current, index, err := crypto.NewestSlot(header, size)
	if err != nil {
		index = -1
		info.problem("no valid header: %v", err)
	}
	for i := range len(header) / size {
		slot := inspectSlot(header[i*size : (i+1)*size])
		slot.Current = i == index
		info.Slots = append(info.Slots, slot)
	}
	if index >= 0 {
		info.describe(current)
	}
}

func inspectSlot(b []byte) SlotInfo {
	info := SlotInfo{Size: len(b)}
	slot, err := crypto.DecodeSlot(b)
	if err != nil {
		info.Problem = err.Error()
		return info
	}
	info.Valid = true
	info.Sequence = slot.Sequence
	info.KEKVersion = kekVersion(slot)
	return info
}

// describe fills in what the current slot says.
func (info *FileInfo) describe(slot crypto.Slot) {
	h, err := slot.Sealed.Peek()
	if err != nil {
		info.problem("header: %v", err)
		return
	}
	info.Header = &HeaderInfo{
		Suite:      h.Suite,
		BlockSize:  1 << h.BlockLog2,
		Sealed:     h.Flags&crypto.FlagSealed != 0,
		Sparse:     h.Flags&crypto.FlagSparse != 0,
		VolumeID:   h.Volume,
		FileID:     h.File,
		KEKVersion: kekVersion(slot),
	}
	if !info.Header.Sealed {
		return
	}
	info.Header.SealedSize = &h.Size
	if h.Size != uint64(info.PlaintextSize) {
		info.problem("the size on disk gives %d bytes of plaintext, but %d were sealed", info.PlaintextSize, h.Size)
	}
}

// guessSlotSize finds out the slot size without envfs.json: a file from a
// backup may be looked at alone. Where no slot is valid, one that at least
// claims a size decides.
func guessSlotSize(header []byte) int {
	claimed := 0
	for _, size := range []int{crypto.SmallSlot, crypto.LargeSlot} {
		for at := 0; at+size <= len(header) && at <= size; at += size {
			_, err := crypto.DecodeSlot(header[at : at+size])
			switch {
			case err == nil:
				return size
			case errors.Is(err, crypto.ErrNoSlot), errors.Is(err, crypto.ErrBadMagic), errors.Is(err, crypto.ErrSlotSize):
			case claimed == 0:
				claimed = size
			}
		}
	}
	if claimed == 0 {
		return crypto.SmallSlot
	}
	return claimed
}

func kekVersion(slot crypto.Slot) int {
	version, err := keyring.Wrapped(slot.Wrapped).Version()
	if err != nil {
		return 0
	}
	return version
}
