package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/volume"
)

// checkMount finds what stands in the way of a mount before anything is asked
// or done. It makes the paths of the request absolute and free of symbolic
// links, and returns the config of the volume, which nobody has vouched for.
func checkMount(r *mountRequest) (*volume.Config, error) {
	cfg, err := volume.ReadConfig(r.Dir)
	if err != nil {
		return nil, aboutNamed(r.Dir, err)
	}
	if r.Dir, err = resolve(r.Dir); err != nil {
		return nil, err
	}
	if err := checkMountpoint(r); err != nil {
		return nil, err
	}
	if err := checkFuse(r.Options.AllowOther); err != nil {
		return nil, err
	}
	return cfg, r.Keys.checkPin(cfg)
}

func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

func checkMountpoint(r *mountRequest) error {
	given := r.Mountpoint
	point, err := mounts.Resolve(given)
	if errors.Is(err, fs.ErrNotExist) {
		return about(given, missingMountpoint(r.Dir, given))
	}
	if err != nil {
		return err
	}
	r.Mountpoint = point
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	m, mounted := table.At(point)
	mounted = mounted && m.IsEnvfs()
	st, err := os.Stat(point)
	if err == nil && mounted {
		// The kernel may know the attributes of a mount whose process is gone; for this it has to ask.
		err = unix.Statfs(point, &unix.Statfs_t{})
	}
	if mounts.IsDead(err) {
		return about(given, errDeadMount)
	}
	if mounted {
		return about(given, fmt.Errorf("%w: that of %s", errAlreadyMounted, m.Source))
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return about(given, errNotDirectory)
	}
	if err := checkNesting(r.Dir, point); err != nil {
		return about(given, err)
	}
	if r.Options.NonEmpty {
		return nil
	}
	return checkEmpty(given)
}

// missingMountpoint says what is wrong with a mountpoint that is not there. To make it helps only outside of the ciphertext
// directory.
func missingMountpoint(dir, given string) error {
	parent, err := resolve(filepath.Dir(given))
	if err != nil {
		return errNoMountpoint
	}
	if inside, err := isInside(filepath.Join(parent, filepath.Base(given)), dir); err == nil && inside {
		return errInsideSource
	}
	return errNoMountpoint
}

// checkNesting compares two resolved directories and all above them, as files
// rather than as paths, so that a bind mount does not mislead it.
func checkNesting(dir, point string) error {
	for _, relation := range []struct {
		holds func() (bool, error)
		err   error
	}{
		{func() (bool, error) { return sameFile(dir, point) }, errSameDirectory},
		{func() (bool, error) { return isInside(point, dir) }, errInsideSource},
		{func() (bool, error) { return isInside(dir, point) }, errSourceInside},
	} {
		holds, err := relation.holds()
		if err != nil {
			return err
		}
		if holds {
			return relation.err
		}
	}
	return nil
}

// isInside tells whether a directory above path is dir.
func isInside(path, dir string) (bool, error) {
	for path != "/" {
		path = filepath.Dir(path)
		if same, err := sameFile(path, dir); err != nil || same {
			return same, err
		}
	}
	return false, nil
}

func sameFile(a, b string) (bool, error) {
	first, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second), err
}

func checkEmpty(point string) error {
	f, err := os.Open(point)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	_, err = f.Readdirnames(1)
	switch {
	case err == nil:
		return about(point, errNotEmpty)
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// checkFuse finds out whether this user can mount at all.
func checkFuse(allowOther bool) error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", errFuseDenied, err)
	case err != nil:
		return fmt.Errorf("%w: %w", errNoFuse, err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := mounts.Helper(); err != nil {
		return err
	}
	if allowOther && !othersAllowed("/etc/fuse.conf") {
		return errAllowOther
	}
	return nil
}

// othersAllowed reads the configuration of fusermount3.
func othersAllowed(conf string) bool {
	text, err := os.ReadFile(conf)
	if err != nil {
		return errors.Is(err, unix.EACCES) // then fusermount3, which can read it, decides
	}
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// checkPin refuses a volume that names another Transit key than the user did:
// who can write to the ciphertext directory must not choose the key.
func (k *keySettings) checkPin(cfg *volume.Config) error {
	if k.TransitKey == "" && k.TransitMount == "" {
		return nil
	}
	if cfg.Keyring.Type != volume.KeyringVault {
		return errNotVaultKeyring
	}
	ref := cfg.Keyring.Vault
	if k.TransitKey != "" && ref.Key != k.TransitKey {
		return fmt.Errorf("%w: %q, not %q", errPinned, ref.Key, k.TransitKey)
	}
	if mount := strings.Trim(k.TransitMount, "/"); mount != "" && ref.Mount != mount {
		return fmt.Errorf("%w: at %q, not at %q", errPinned, ref.Mount, mount)
	}
	return nil
}
