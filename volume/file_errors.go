package volume

import (
	"errors"

	"github.com/envfs/envfs/crypto"
)

// What can be wrong with a file as a whole. Each is damage or tampering, and leaves the file untouched.
var (
	ErrOtherVolume  = errors.New("the file belongs to another volume")
	ErrSwappedKey   = errors.New("the wrapped key belongs to another file")
	ErrSizeMismatch = errors.New("the size on disk is not the sealed one")
)

// IsDamage reports whether err says that ciphertext is not what envfs wrote, as opposed to a failure of disk or key
// service.
func IsDamage(err error) bool {
	for _, damage := range []error{
		ErrOtherVolume, ErrSwappedKey, crypto.ErrUnsupported, ErrSizeMismatch, ErrShortFile, ErrJournal,
		crypto.ErrTruncatedHeader, crypto.ErrTornTail, crypto.ErrHeaderTampered, crypto.ErrNoSlot, crypto.ErrBadMagic,
		crypto.ErrNewerVersion, crypto.ErrChecksum, crypto.ErrSlotSize, crypto.ErrForeignName, crypto.ErrMalformedSlot,
		crypto.ErrPayloadSize, crypto.ErrForeignTarget, crypto.ErrValueTampered, errNameLost, errNameDamaged,
	} {
		if errors.Is(err, damage) {
			return true
		}
	}
	var block *BlockDamage
	return errors.As(err, &block)
}
