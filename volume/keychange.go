package volume

import (
	"errors"
	"fmt"

	"github.com/envfs/envfs/crypto"
)

// KeyChange says what a rewrap or a rekey has done to the key of one file, or could not do.
type KeyChange struct {
	Path  string    // below the ciphertext directory, one of several perhaps; ConfigName stands for the volume key
	ID    crypto.ID // that the file had before; zero if it is not known
	NewID crypto.ID // that it has since a rekey
	KEK   int       // version that wraps its key now; 0 if it is not known
	Err   error     // why nothing was changed
}

// KeyAuditor takes notes of changes of keys. It is called from several goroutines at once.
type KeyAuditor interface {
	// Ready is asked before a key is changed. Its error says that this may not be, because it could not be noted, and stops
	// the work.
	Ready() error
	// Record notes what was done, or was not. Its error stops the work as well.
	Record(c KeyChange) error
}

// errNotNoted: a change could not be noted although it must be.
var errNotNoted = errors.New("what is done to keys cannot be recorded")

// keyAudit calls an auditor, if there is one.
type keyAudit struct{ KeyAuditor }

func (a keyAudit) ready() error {
	if a.KeyAuditor == nil {
		return nil
	}
	return notNoted(a.Ready())
}

func (a keyAudit) record(c KeyChange) error {
	if a.KeyAuditor == nil {
		return nil
	}
	return notNoted(a.Record(c))
}

func notNoted(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errNotNoted, err)
}
