package main

import (
	"strconv"
	"strings"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/volume"
)

// examineVolume looks at the volume without any key. It returns its config, or
// nil.
func (d *doctorCommand) examineVolume(r section, path string) *volume.Config {
	dir, cfg, err := volumeAt(path)
	if err != nil {
		r.failed("envfs.json", err)
		return nil
	}
	r.ok("envfs.json", "%s: format %d, %s names, volume %v", dir, cfg.Format, cfg.Names, cfg.VolumeID)
	keyring := volume.KeyringInfo{Type: cfg.Keyring.Type}
	if v := cfg.Keyring.Vault; v != nil {
		keyring.Mount, keyring.Key = v.Mount, v.Key
	}
	if err := d.keys.checkPin(cfg); err != nil {
		r.failed("keyring", about(dir, err))
	} else {
		r.ok("keyring", "%s", describeKeyring(keyring))
	}
	examineLock(r, dir)
	return cfg
}

// examineLock tells who uses the volume.
func examineLock(r section, dir string) {
	var where []string
	for _, m := range (place{volume: dir, rel: "."}).mounts() {
		how := "read-write"
		if m.ReadOnly {
			how = "read-only"
		}
		where = append(where, m.Mountpoint+" ("+how+")")
	}
	pids, err := mounts.LockHolders(dir)
	var holders []string
	for _, pid := range pids {
		holders = append(holders, strconv.Itoa(pid))
	}
	switch {
	case err != nil:
		r.warn("in use", "", "cannot be told: %v", err)
	case len(where) > 0 && len(holders) > 0:
		r.ok("in use", "mounted at %s by process %s", strings.Join(where, ", "), strings.Join(holders, ", "))
	case len(where) > 0:
		r.ok("in use", "mounted at %s", strings.Join(where, ", "))
	case len(holders) > 0:
		r.warn("in use", "a mount in another namespace, or a daemon that still writes: envfs umount waits for it",
			"not mounted here, but locked by process %s", strings.Join(holders, ", "))
	default:
		r.ok("in use", "by nobody")
	}
}
