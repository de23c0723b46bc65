package volume

import (
	"errors"
	"fmt"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// MaxName is the longest plaintext name, in bytes, as on ext4.
const MaxName = 255

// Name is how a plaintext name is stored in a directory of the volume.
type Name struct {
	Stored string // the name of the entry
	Full   string // the whole encoded name if Stored is only its hash, else empty
}

// Long reports whether the full name stands in a file beside the entry.
func (n Name) Long() bool { return n.Full != "" }

// EncodeName returns how name is stored. It refuses names that are too long or, in a volume with plaintext names, reserved.
func (v *Volume) EncodeName(name string) (Name, error) {
	if len(name) > MaxName {
		return Name{}, unix.ENAMETOOLONG
	}
	if v.names == nil {
		if crypto.IsReserved(name) {
			return Name{}, fmt.Errorf("%w: %q", ErrReservedName, name)
		}
		return Name{Stored: name}, nil
	}
	encoded := v.names.Encrypt(name)
	stored, long := crypto.StoredName(encoded)
	if long {
		return Name{Stored: stored, Full: encoded}, nil
	}
	return Name{Stored: stored}, nil
}

// ErrHidden is returned for entries of the ciphertext directory that are not files of the volume: its own bookkeeping,
// which nobody needs to hear of.
var ErrHidden = errors.New("not a file of the volume")

// DecodeName returns the plaintext name of an entry of the directory dir. An entry with a long name whose full name was
// lost is shown under its stored name, so that it can still be read, renamed and removed. Errors: ErrHidden for the
// volume's own files, crypto.ErrForeignName for what somebody else put there.
func (v *Volume) DecodeName(dir int, stored string) (string, error) {
	switch {
	case v.names == nil:
		if crypto.IsReserved(stored) {
			return "", ErrHidden
		}
		return stored, nil
	case crypto.IsLong(stored):
		return v.decodeLong(dir, stored)
	case crypto.IsReserved(stored):
		return "", ErrHidden
	}
	return v.names.Decrypt(stored)
}

func (v *Volume) decodeLong(dir int, stored string) (string, error) {
	encoded, err := v.readFullName(dir, crypto.SidecarName(stored))
	if err != nil {
		return stored, nil
	}
	if err := crypto.CheckLong(stored, encoded); err != nil {
		return stored, nil
	}
	return v.names.Decrypt(encoded)
}

// Nameless reports whether name is one under which DecodeName shows an entry that has lost its full name; it is stored
// under that very name.
func (v *Volume) Nameless(dir int, name string) bool {
	if v.names == nil || !crypto.IsLong(name) {
		return false
	}
	shown, err := v.decodeLong(dir, name)
	return err == nil && shown == name
}

// maxSidecar bounds what is read of a file that holds a full name: 255 bytes of name make 362 encoded ones.
const maxSidecar = 1024

func (v *Volume) readFullName(dir int, name string) (_ string, err error) {
	fd, _, err := openForLook(v.store, dir, name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, v.store.Close(fd)) }()
	var st unix.Stat_t
	if err := v.store.Stat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", ErrNotRegular
	}
	buf := make([]byte, maxSidecar)
	n, err := v.store.ReadAt(fd, buf, 0)
	return string(buf[:n]), err
}

// StoreFullName puts the full name of a long name beside the entry that is about to be made, durably, because an entry
// without it would have no name. The content depends on the name alone, so doing it again, or over what a crash left, is
// harmless. It does nothing for short names.
func (v *Volume) StoreFullName(dir int, n Name) (err error) {
	if !n.Long() {
		return nil
	}
	fd, err := v.store.Open(dir, crypto.SidecarName(n.Stored), unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.store.Close(fd)) }()
	if _, err := v.store.WriteAt(fd, []byte(n.Full), 0); err != nil {
		return err
	}
	if err := v.store.Truncate(fd, int64(len(n.Full))); err != nil {
		return err
	}
	return v.store.Sync(fd, false)
}

// DropFullName removes the full name once its entry is gone. What stays behind after an error is harmless.
func (v *Volume) DropFullName(dir int, n Name) {
	if !n.Long() {
		return
	}
	if err := v.store.Unlink(dir, crypto.SidecarName(n.Stored)); err != nil && !errors.Is(err, unix.ENOENT) {
		v.log.Warn("cannot remove the full name of a removed entry", "name", crypto.SidecarName(n.Stored), "error", err)
	}
}

// Sweep removes full names without an entry from the directory dir, which look empty from above but could not be removed
// otherwise: what a crash leaves between the removal of an entry and that of its full name. It reports whether it removed any.
func (v *Volume) Sweep(dir int, entries []string) (bool, error) {
	present := make(map[string]bool, len(entries))
	for _, name := range entries {
		present[name] = true
	}
	swept := false
	for _, name := range entries {
		if !crypto.IsSidecar(name) || present[crypto.LongOfSidecar(name)] {
			continue
		}
		if err := v.store.Unlink(dir, name); err != nil {
			return swept, err
		}
		swept = true
	}
	return swept, nil
}

// Store returns the way to the file system below.
func (v *Volume) Store() *backing.Store { return v.store }

// Root returns the descriptor of the ciphertext directory.
func (v *Volume) Root() int { return int(v.root.Fd()) }
