package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// InitOptions say what volume to make.
type InitOptions struct {
	Ref     KeyringRef      // how later mounts find the keyring
	Keyring keyring.Keyring // wraps the volume key
	Arena   *secret.Arena
	// VolumeID is the ID of the new volume; the zero ID means a random one. A
	// keyring that is bound to the volume must know the ID before Init.
	VolumeID       crypto.ID
	PlaintextNames bool
	// Adopt accepts a directory with entries that cannot belong to the new
	// volume. They stay as they are and no mount shows them. With encrypted
	// names that is every entry, since none decrypts under a new volume key;
	// with plaintext names only lost+found passes.
	Adopt bool
	Store *backing.Store // nil: calls go straight to the file system
}

// Init makes dir a volume, and dir itself (mode 0700) if it is missing. At any
// instant there is either no volume or a complete one, and of several calls at
// once exactly one succeeds. Errors: ErrBadReference, ErrExists, ErrNotEmpty, ErrLocked
// (another Init is at work), those of the keyring, and of the file system. The
// directory is looked at before the keyring is asked, and nothing is written
// before it has answered.
func Init(ctx context.Context, dir string, o InitOptions) (*Config, error) {
	if err := o.Ref.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadReference, err)
	}
	if err := checkInitDir(dir, o); err != nil {
		return nil, err
	}
	c, err := newConfig(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	r, err := openRoot(o.Store, dir)
	if err != nil {
		return nil, err
	}
	return c, errors.Join(r.initialize(c, o.Adopt), r.close())
}

// checkInitDir fails early what initialize would fail.
func checkInitDir(dir string, o InitOptions) error {
	r, err := openRoot(o.Store, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(r.checkFree(o.Adopt, o.PlaintextNames), r.close())
}

// newConfig makes a volume key, has it wrapped, and seals a config with it.
func newConfig(ctx context.Context, o InitOptions) (*Config, error) {
	payload := newPayload(o.Arena)
	defer payload.Wipe()
	key, id, err := crypto.SplitPayload(payload)
	if err != nil {
		return nil, err
	}
	if o.VolumeID != (crypto.ID{}) {
		id = o.VolumeID
		copy(payload.Bytes()[crypto.DEKSize:], id[:])
	}
	wrapped, err := o.Keyring.Wrap(ctx, []*secret.Key{payload})
	if err != nil {
		return nil, fmt.Errorf("wrapping the volume key: %w", err)
	}
	if len(wrapped) != 1 {
		return nil, fmt.Errorf("wrapping the volume key: %d answers to one request", len(wrapped))
	}
	slotSize, err := crypto.SlotSizeFor(len(wrapped[0]))
	if err != nil {
		return nil, fmt.Errorf("wrapped volume key: %w", err)
	}
	c := &Config{
		Format:           Format,
		VolumeID:         id,
		SlotSize:         slotSize,
		Names:            NamesEncrypted,
		Keyring:          o.Ref,
		WrappedVolumeKey: wrapped[0],
	}
	if o.PlaintextNames {
		c.Names = NamesPlaintext
	}
	return c, c.seal(crypto.NewConfigMAC(key))
}

// makeDir makes dir unless it exists, and makes its name durable.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// initialize writes envfs.json. The mount lock keeps other Inits away, so that
// leftovers can be told from a temporary file in use; that there will be one
// volume only does not depend on it.
func (r *root) initialize(c *Config, adopt bool) error {
	lock, err := r.lock(true)
	if err != nil {
		if exists := r.checkAbsent(); exists != nil {
			return exists
		}
		return err
	}
	defer lock.Close() // nothing was written through it
	if err := r.checkFree(adopt, c.Names == NamesPlaintext); err != nil {
		return err
	}
	if err := r.removeLeftovers(); err != nil {
		return err
	}
	return r.createConfig(c)
}

func (r *root) checkAbsent() error {
	var st unix.Stat_t
	err := r.store.StatAt(r.fd(), ConfigName, &st)
	switch {
	case err == nil:
		return fmt.Errorf("%s: %w", r.path, ErrExists)
	case errors.Is(err, unix.ENOENT):
		return nil
	}
	return r.failed("stat", ConfigName, err)
}

// checkFree fails if there is a volume, or an entry that forbids one.
func (r *root) checkFree(adopt, plaintextNames bool) error {
	if err := r.checkAbsent(); err != nil {
		return err
	}
	return r.names(func(name string) error {
		foreign := !plaintextNames || name == "lost+found"
		switch {
		case name == ConfigName: // just made
			return fmt.Errorf("%s: %w", r.path, ErrExists)
		case isTempName(name) || adopt && foreign:
			return nil
		}
		return fmt.Errorf("%s: %w: it holds %q", r.path, ErrNotEmpty, name)
	})
}

// newPayload makes what a key service wraps: a random key ‖ a random ID.
func newPayload(arena *secret.Arena) *secret.Key {
	return arena.Random(crypto.PayloadSize)
}
