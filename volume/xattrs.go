package volume

import (
	"strings"

	"github.com/envfs/envfs/crypto"
	"golang.org/x/sys/unix"
)

const (
	userPrefix     = "user."
	trustedPrefix  = "trusted."
	securityPrefix = "security."
	aclAccess      = "system.posix_acl_access"
	aclDefault     = "system.posix_acl_default"
	// securityStored is where security.* attributes are kept: the kernel would interpret the ciphertext of one. A symbolic
	// link or a device can have no user.* attributes, so theirs are kept in the namespace that only root may use.
	securityStored        = reservedXattr + "security."
	securityStoredSpecial = reservedTrusted + "security."
	reservedXattr         = "user.envfs."
	reservedTrusted       = "trusted.envfs."
)

// AttrName returns the name under which an extended attribute is stored, and whether its value is encrypted. POSIX ACLs
// are kept as they are, because the file system below must act on them. special says that the file is neither a regular one
// nor a directory.
func (v *Volume) AttrName(attr string, special bool) (stored string, encrypted bool, err error) {
	switch {
	case attr == aclAccess || attr == aclDefault:
		return attr, false, nil
	case attr == userPrefix, attr == trustedPrefix, attr == securityPrefix:
		return "", false, unix.EINVAL
	case strings.HasPrefix(attr, reservedXattr), strings.HasPrefix(attr, reservedTrusted):
		return "", false, unix.EPERM
	case strings.HasPrefix(attr, userPrefix), strings.HasPrefix(attr, trustedPrefix):
		return attr, true, nil
	case strings.HasPrefix(attr, securityPrefix) && special:
		return securityStoredSpecial + attr[len(securityPrefix):], true, nil
	case strings.HasPrefix(attr, securityPrefix):
		return securityStored + attr[len(securityPrefix):], true, nil
	}
	return "", false, unix.EOPNOTSUPP
}

// AttrShown returns the name under which a stored attribute is listed, or "" if it is not.
func (v *Volume) AttrShown(stored string) string {
	switch {
	case stored == aclAccess || stored == aclDefault:
		return stored
	case strings.HasPrefix(stored, securityStored):
		return securityPrefix + stored[len(securityStored):]
	case strings.HasPrefix(stored, securityStoredSpecial):
		return securityPrefix + stored[len(securityStoredSpecial):]
	case strings.HasPrefix(stored, reservedXattr), strings.HasPrefix(stored, reservedTrusted):
		return ""
	case strings.HasPrefix(stored, userPrefix), strings.HasPrefix(stored, trustedPrefix):
		return stored
	}
	return ""
}

// SealAttr encrypts the value of the attribute called attr by applications.
func (v *Volume) SealAttr(attr string, value []byte) []byte { return v.values.Seal(attr, value) }

// OpenAttr decrypts a stored value.
func (v *Volume) OpenAttr(attr string, stored []byte) ([]byte, error) {
	return v.values.Open(attr, stored)
}

// AttrOverhead is how many bytes a stored value is longer than what it holds.
const AttrOverhead = crypto.NonceSize + crypto.TagSize
