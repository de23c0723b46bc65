package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// UpdateKeyring replaces the keyring section of envfs.json, as after a change
// of passphrase. It is atomic and keeps owner and mode of the file. A volume
// that is mounted can be updated: open it Unlocked. The type of keyring cannot
// change, because the files' keys are wrapped by the one there is.
//
// The caller answers for ref opening the same keys as before. What else the
// file says is taken from the disk, so that a wrapped volume key that somebody
// rewrapped since Open stays.
func (v *Volume) UpdateKeyring(ref KeyringRef) error {
	if err := ref.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrBadReference, err)
	}
	if v.readOnly {
		return fmt.Errorf("%s: %w", v.dir, unix.EROFS)
	}
	r := &root{store: v.store, dir: v.root, path: v.dir}
	f, st, err := r.lockConfig()
	if err != nil {
		return err
	}
	defer f.Close() // nothing was written through it
	c, err := r.readConfig()
	if err != nil {
		return err
	}
	if err := v.replaceRef(c, ref); err != nil {
		return r.configError(err)
	}
	if err := r.removeLeftovers(); err != nil {
		return err
	}
	return r.replaceConfig(c, st)
}

// replaceRef changes c, which comes fresh from the disk, if it is authentic.
func (v *Volume) replaceRef(c *Config, ref KeyringRef) error {
	if err := c.verify(v.mac); err != nil {
		return err
	}
	if ref.Type != c.Keyring.Type {
		return errors.New("the type of the keyring cannot be changed")
	}
	c.Keyring = ref
	return c.seal(v.mac)
}
