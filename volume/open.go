package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Volume is an open volume. It is safe for concurrent use; its fields do not
// change between Open and Close.
type Volume struct {
	dir    string  // absolute path of the ciphertext directory, for messages
	cfg    *Config // as it was at Open
	layout crypto.Layout
	names  *crypto.NameCipher // nil: plaintext names
	links  *crypto.LinkCipher
	values *crypto.ValueCipher
	mac    *crypto.ConfigMAC
	// journalMAC belongs to the replay, then to the journal.
	journalMAC *crypto.JournalMAC
	cache      *keyring.Cache
	batcher    *keyring.Batcher // under cache
	pool       *keyring.Pool    // nil: no file can be created
	arena      *secret.Arena
	log        *slog.Logger
	readOnly   bool
	store      *backing.Store
	lock       *os.File // holds the mount lock; nil if Unlocked
	shared     bool     // the lock is shared with others that only read
	root       *os.File // the ciphertext directory as it was found by Open

	engine // what open files share
}

// OpenOptions say how to open a volume.
type OpenOptions struct {
	// ReadOnly shares the volume with other readers and makes no keys.
	ReadOnly bool
	// Unlocked takes no mount lock: for work that is allowed beside a mount,
	// like translating paths or changing the passphrase. It makes no keys.
	Unlocked bool
	// Detached takes cfg as it is and reads no envfs.json in dir: for files of a
	// backup whose envfs.json is elsewhere.
	Detached bool
	Arena    *secret.Arena
	Log      *slog.Logger   // nil: discard
	Store    *backing.Store // nil: calls go straight to the file system
	Pool     keyring.PoolOptions
	Batcher  keyring.BatcherOptions
	Cache    keyring.CacheOptions
	// SealDelay is how long a file that was written and closed waits to be
	// sealed together with others; 0 means DefaultSealDelay.
	SealDelay time.Duration
	// CrashSafety says which blocks survive a crash while they are being overwritten.
	CrashSafety CrashSafety
	journalSize int64 // bytes of a new journal; 0: as CrashSafety needs it
	// Prefetch gets the keys of files ahead of a program that opens them in
	// directory order: for a key service at a distance.
	Prefetch bool
}

// Open opens the volume in dir. cfg is what the caller chose the keyring by;
// what counts is envfs.json as it stands after the lock was taken, which must
// be of the same volume, and which Open authenticates with the volume key.
// If the last mount did not come to its end, its journal is replayed first.
// Errors: those of ReadConfig, ErrLocked, ErrForgedConfig, ErrJournal, ErrReplay, and the classes of
// package keyring (keyring.ErrDenied among them for a wrong passphrase).
func Open(ctx context.Context, dir string, cfg *Config, kr keyring.Keyring, o OpenOptions) (_ *Volume, err error) {
	r, err := openRoot(o.Store, dir)
	if err != nil {
		return nil, err
	}
	v := &Volume{
		dir: r.path, root: r.dir, store: r.store,
		arena: o.Arena, log: o.Log, readOnly: o.ReadOnly,
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	if !o.Unlocked {
		if err := v.takeLock(r, o.ReadOnly); err != nil {
			return nil, err
		}
	}
	if v.cfg = cfg; !o.Detached {
		if v.cfg, err = r.readConfig(); err != nil {
			return nil, err
		}
	}
	if v.cfg.VolumeID != cfg.VolumeID {
		return nil, fmt.Errorf("%s: another volume has taken the place of %v", v.dir, cfg.VolumeID)
	}
	if err := v.unlock(ctx, kr); err != nil {
		return nil, r.configError(err)
	}
	if err := v.bringUpToDate(); err != nil {
		return nil, err
	}
	v.startKeys(kr, o)
	return v, nil
}

// unlock has the volume key unwrapped and authenticates the config with it.
func (v *Volume) unlock(ctx context.Context, kr keyring.Keyring) error {
	payload, err := unwrapVolumeKey(ctx, kr, v.cfg.WrappedVolumeKey)
	if err != nil {
		return fmt.Errorf("volume key: %w", err)
	}
	defer payload.Wipe()
	key, id, err := crypto.SplitPayload(payload)
	if err != nil {
		return fmt.Errorf("%w: volume key: %w", ErrForgedConfig, err)
	}
	if id != v.cfg.VolumeID {
		return fmt.Errorf("%w: the volume key belongs to volume %v", ErrForgedConfig, id)
	}
	v.mac = crypto.NewConfigMAC(key)
	if err := v.cfg.verify(v.mac); err != nil {
		return err
	}
	return v.useKey(key)
}

func unwrapVolumeKey(ctx context.Context, kr keyring.Keyring, w keyring.Wrapped) (*secret.Key, error) {
	answers, err := kr.Unwrap(ctx, []keyring.Wrapped{w})
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("%d answers to one request", len(answers))
	}
	return answers[0].Key, answers[0].Err
}

// useKey derives what a volume needs of its key, which it does not keep.
func (v *Volume) useKey(key []byte) (err error) {
	v.layout = crypto.Layout{SlotSize: int64(v.cfg.SlotSize)}
	if v.cfg.Names == NamesEncrypted {
		if v.names, err = crypto.NewNameCipher(key); err != nil {
			return err
		}
	}
	if v.links, err = crypto.NewLinkCipher(key); err != nil {
		return err
	}
	v.journalMAC = crypto.NewJournalMAC(key)
	v.values, err = crypto.NewValueCipher(key)
	return err
}

func (v *Volume) startKeys(kr keyring.Keyring, o OpenOptions) {
	v.engine.start(v, o)
	o.Cache.BeforeDrop, o.Cache.OnDrop = v.keyRefused, v.keyRefused
	if o.Cache.Inline {
		v.cache = keyring.NewCache(keyring.Unbatched(kr), o.Cache)
	} else {
		v.batcher = keyring.NewBatcher(kr, o.Batcher)
		v.cache = keyring.NewCache(v.batcher, o.Cache)
	}
	if !o.ReadOnly && !o.Unlocked {
		generate := func() *secret.Key { return newPayload(v.arena) }
		v.pool = keyring.NewPool(kr, generate, o.Pool)
	}
}

// Close wipes the keys and gives the lock back. Files of the volume must be
// closed before.
func (v *Volume) Close() error {
	var errs []error
	errs = append(errs, v.engine.stop())
	if v.pool != nil {
		v.pool.Close()
	}
	if v.cache != nil {
		v.cache.Close()
	}
	if v.batcher != nil {
		v.batcher.Close()
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Close())
	}
	errs = append(errs, v.root.Close())
	return errors.Join(errs...)
}
