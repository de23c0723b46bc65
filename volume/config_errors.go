package volume

import (
	"errors"
	"fmt"
)

// Classes of what can be wrong with a ciphertext directory. Errors of this
// package name the path and wrap one of these, or an error of the operating
// system, of crypto or of keyring.
var (
	// ErrNotVolume: the directory holds no envfs.json, or is no directory.
	ErrNotVolume = errors.New("not an envfs volume")
	// ErrNewerFormat: the format number is higher than this version knows.
	ErrNewerFormat = errors.New("written by a newer version of envfs")
	// ErrDamagedConfig: envfs.json is cut short, no JSON, not what any
	// version writes, or its checksum disagrees. No key was asked.
	ErrDamagedConfig = errors.New("envfs.json is damaged")
	// ErrForgedConfig: the volume key opened, but does not vouch for the rest
	// of envfs.json: somebody changed it.
	ErrForgedConfig = errors.New("envfs.json was tampered with")
	// ErrBadReference: a KeyringRef given by the caller that no volume can have.
	ErrBadReference = errors.New("unusable reference to a keyring")
	// ErrExists: there is a volume already.
	ErrExists = errors.New("is an envfs volume already")
	// ErrNotEmpty: the directory holds entries and may not be adopted.
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrLocked is the class of every *LockedError.
	ErrLocked = errors.New("in use by another process")
	// ErrBadPath: a path is absolute, leaves the volume, or has a part that
	// cannot be a name.
	ErrBadPath = errors.New("not a path within a volume")
	// ErrReservedName: a name that envfs keeps for itself ("envfs.…").
	ErrReservedName = errors.New("name is reserved for envfs")
	// ErrNotRegular: something else than a regular file where only that is read.
	ErrNotRegular = errors.New("not a regular file")
)

// LockedError says who holds the lock of a volume. errors.Is(err, ErrLocked).
type LockedError struct {
	Path   string // the ciphertext directory
	Holder int    // process ID, 0 when it could not be found out
}

func (e *LockedError) Error() string {
	if e.Holder == 0 {
		return fmt.Sprintf("%s: %v", e.Path, ErrLocked)
	}
	return fmt.Sprintf("%s: %v (pid %d)", e.Path, ErrLocked, e.Holder)
}

// Unwrap gives the class.
func (e *LockedError) Unwrap() error { return ErrLocked }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamagedConfig, fmt.Sprintf(format, args...))
}
