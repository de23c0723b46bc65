package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/envfs/envfs/keyring"
)

// rewrapConfig moves the wrapped volume key to the newest version. It comes first, so that a key service that refuses does so
// before a tree is walked. Its MAC does not cover that key, and stays.
func (r *rewrap) rewrapConfig(ctx context.Context) error {
	for {
		old := r.cfg.WrappedVolumeKey
		version, err := old.Version()
		if err != nil {
			return r.root.configError(fmt.Errorf("volume key: %w", err))
		}
		if version >= r.version {
			return nil
		}
		if r.DryRun {
			r.count.volumeKey.Store(true)
			return nil
		}
		// The service is asked before the lock is taken, and the lock only held for the exchange.
		answers, err := r.request(ctx, []keyring.Wrapped{old})
		if err == nil {
			err = answers[0].Err
		}
		if err != nil {
			return r.root.configError(fmt.Errorf("volume key: %w", err))
		}
		if done, err := r.exchangeVolumeKey(old, answers[0].Wrapped); done || err != nil {
			return err
		}
	}
}

// exchangeVolumeKey puts a wrapped volume key in the place of old. It reports false if another one has taken that place.
func (r *rewrap) exchangeVolumeKey(old, next keyring.Wrapped) (done bool, err error) {
	f, st, err := r.root.lockConfig()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c, err := r.root.readConfig()
	if err != nil {
		return false, err
	}
	if c.VolumeID != r.cfg.VolumeID {
		return false, fmt.Errorf("%s: another volume has taken the place of %v", r.root.path, r.cfg.VolumeID)
	}
	r.cfg = c
	if c.WrappedVolumeKey != old {
		return false, nil
	}
	c.WrappedVolumeKey = next
	if c.Checksum, err = c.checksum(); err != nil {
		return false, err
	}
	if err := r.audit().ready(); err != nil {
		return false, err
	}
	if err := r.root.removeLeftovers(); err != nil {
		return false, err
	}
	if err := r.root.replaceConfig(c, st); err != nil {
		return false, err
	}
	r.count.volumeKey.Store(true)
	return true, r.audit().record(KeyChange{Path: ConfigName, KEK: versionOf(next)})
}
