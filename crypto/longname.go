package crypto

import (
	"crypto/sha256"
	"errors"
	"strings"
)

const (
	// MaxStoredName is the longest name in bytes that the ciphertext directory holds.
	MaxStoredName = 255
	// MaxEncodedName is the size of the longest encoded name, that of a name of
	// MaxName bytes, and so the bound on what is read from a sidecar file.
	MaxEncodedName = ((MaxName+sivSize)*8 + 5) / 6

	// ReservedPrefix begins the names in the ciphertext directory that are the
	// volume's own: the configuration, long names and their sidecars.
	ReservedPrefix = "envfs."

	longPrefix    = ReservedPrefix + "long."
	sidecarPrefix = ReservedPrefix + "name."
	hashTextSize  = (sha256.Size*8 + 5) / 6
)

// ErrLongName says that a long name and the content of its sidecar do not belong
// together.
var ErrLongName = errors.New("long name does not match its sidecar")

// IsReserved reports whether a name in the ciphertext directory is the volume's own
// and so stands for no name itself.
func IsReserved(stored string) bool { return strings.HasPrefix(stored, ReservedPrefix) }

// StoredName returns the name under which an encoded name is stored: itself up to
// MaxStoredName bytes, else "envfs.long." + base64url(SHA-256(encoded)). A long one
// needs the encoded name in a file beside it, named SidecarName(stored).
func StoredName(encoded string) (stored string, long bool) {
	if len(encoded) <= MaxStoredName {
		return encoded, false
	}
	return longPrefix + hashText(encoded), true
}

// IsLong reports whether stored has the form of a long name.
func IsLong(stored string) bool { return hasHash(stored, longPrefix) }

// SidecarName returns the name of the file that holds the encoded name of a long
// name, and "" if stored is no long name.
func SidecarName(stored string) string {
	if !IsLong(stored) {
		return ""
	}
	return sidecarPrefix + stored[len(longPrefix):]
}

// IsSidecar reports whether name has the form of a long name's sidecar.
func IsSidecar(name string) bool { return hasHash(name, sidecarPrefix) }

// LongOfSidecar returns the long name that a sidecar belongs to, and "" if name is
// no sidecar.
func LongOfSidecar(name string) string {
	if !IsSidecar(name) {
		return ""
	}
	return longPrefix + name[len(sidecarPrefix):]
}

// CheckLong fails with ErrLongName unless encoded, read from a sidecar, is the
// encoded name of the long name stored. It proves no origin: Decrypt does.
func CheckLong(stored, encoded string) error {
	if len(encoded) > MaxEncodedName {
		return ErrLongName
	}
	if name, long := StoredName(encoded); !long || name != stored {
		return ErrLongName
	}
	return nil
}

func hashText(encoded string) string {
	sum := sha256.Sum256([]byte(encoded))
	return encoding.EncodeToString(sum[:])
}

func hasHash(name, prefix string) bool {
	text, ok := strings.CutPrefix(name, prefix)
	if !ok || len(text) != hashTextSize {
		return false
	}
	_, err := decode(text)
	return err == nil
}
