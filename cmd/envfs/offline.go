package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/volume"
)

var (
	errShownInMount = errors.New("is in a mount, where programs see the plaintext")
	errNoCiphertext = errors.New("no such file or directory")
	errCiphertext   = errors.New("leads through ciphertext, but is to be a plaintext path")
)

// offlineVolume is a volume that a command uses without a mount.
type offlineVolume struct {
	dir     string // resolved
	cfg     *volume.Config
	options volume.OpenOptions
	rel     string // what in it: a path below dir
}

// use opens the volume, has work done with it, and closes it.
func (o *offlineVolume) use(ctx context.Context, a *app, keys keySettings, work func(v *volume.Volume) error) error {
	if err := keys.checkPin(o.cfg); err != nil {
		return about(o.dir, err)
	}
	log := a.log()
	a.protect(log)
	opener := keyringOpener{keySettings: keys, arena: secret.NewArena(log)}
	passphrase, err := keys.passphrase(ctx, a, o.dir, o.cfg)
	if err != nil {
		return err
	}
	kr, err := opener.open(ctx, o.cfg, passphrase)
	if err != nil {
		return about(o.dir, err)
	}
	defer kr.Close()
	options := o.options
	options.Arena, options.Log = opener.arena, log
	v, err := volume.Open(ctx, o.dir, o.cfg, kr, options)
	if err != nil {
		return aboutNamed(o.dir, err)
	}
	return errors.Join(work(v), v.Close())
}

// warnOfJournal says that a crash has left something to do, where opening the volume does not do it.
func (o *offlineVolume) warnOfJournal(a *app) {
	if !o.options.Unlocked {
		return
	}
	st, err := os.Lstat(filepath.Join(o.dir, volume.CrashJournal))
	if err == nil && st.Size() > 0 {
		a.warn("%s: its last mount did not end well, and %s holds writes that are not in their files yet; mount it once first",
			o.dir, volume.CrashJournal)
	}
}

// findCiphertext finds what a path in a ciphertext directory, or in a copy of a part of one, belongs to. config is a
// directory with envfs.json, or a copy of that file; "" is the nearest one above.
func findCiphertext(name, config string) (*offlineVolume, error) {
	var st fs.FileInfo
	abs, err := resolveParent(name)
	if err == nil {
		st, err = os.Lstat(abs)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, about(name, errNoCiphertext)
	}
	if err != nil {
		return nil, err
	}
	if err := notInMount(name, abs); err != nil {
		return nil, err
	}
	o := &offlineVolume{options: volume.OpenOptions{ReadOnly: true}}
	p, err := locateInVolume(abs)
	switch {
	case err == nil:
		o.dir, o.rel = p.volume, p.rel
	case config == "" || !errors.Is(err, errNoVolume):
		return nil, err
	case st.IsDir():
		o.dir, o.rel, o.options.Unlocked = abs, ".", true
	default:
		o.dir, o.rel, o.options.Unlocked = filepath.Dir(abs), filepath.Base(abs), true
	}
	return o, o.readConfig(config)
}

// readConfig reads the envfs.json that was named, or that of the directory itself.
func (o *offlineVolume) readConfig(config string) (err error) {
	if config == "" {
		config = o.dir
	}
	file, err := resolve(config)
	if err != nil {
		return err
	}
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.IsDir() {
		file = filepath.Join(file, volume.ConfigName)
	}
	if file == filepath.Join(o.dir, volume.ConfigName) {
		o.cfg, err = volume.ReadConfig(o.dir)
		return aboutNamed(o.dir, err)
	}
	o.options.Detached = true
	if st.IsDir() {
		o.cfg, err = volume.ReadConfig(filepath.Dir(file))
	} else {
		o.cfg, err = volume.ReadConfigFile(file)
	}
	return aboutNamed(config, err)
}

// findPlaintext finds the volume and the plaintext path in it that name stands for: below dir, or, if that is "", below the
// nearest volume above it.
func findPlaintext(name, dir string) (_ *offlineVolume, err error) {
	o := &offlineVolume{}
	if dir != "" {
		if o.dir, err = resolve(dir); err != nil {
			return nil, err
		}
		o.rel = name
	}
	if dir == "" || filepath.IsAbs(name) {
		if err := o.below(name); err != nil {
			return nil, err
		}
	}
	if !filepath.IsLocal(o.rel) {
		return nil, about(name, fmt.Errorf("%w at %s", errOutside, o.dir))
	}
	o.rel = filepath.Clean(o.rel)
	o.cfg, err = volume.ReadConfig(o.dir)
	return o, aboutNamed(o.dir, err)
}

// below sets the path in the volume, and the volume unless it is known, from a path of which only the beginning is there:
// names in the volume are encrypted.
func (o *offlineVolume) below(name string) error {
	abs, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	there, rest := abs, ""
	for {
		_, err := os.Lstat(there)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return err
		}
		there, rest = filepath.Dir(there), filepath.Join(filepath.Base(there), rest)
	}
	if there, err = filepath.EvalSymlinks(there); err != nil {
		return err
	}
	if err := notInMount(name, there); err != nil {
		return err
	}
	p, err := locateInVolume(there)
	if err != nil {
		return err
	}
	if o.dir != "" && p.volume != o.dir {
		return about(name, fmt.Errorf("%w at %s", errOutside, o.dir))
	}
	o.dir, o.rel = p.volume, filepath.Join(p.rel, rest)
	cfg, err := volume.ReadConfig(o.dir)
	if err == nil && p.rel != "." && cfg.Names == volume.NamesEncrypted {
		return about(name, errCiphertext)
	}
	return aboutNamed(o.dir, err)
}

// notInMount refuses a path in a mount, which needs no such command.
func notInMount(name, abs string) error {
	table, err := mounts.Read()
	if err != nil {
		return err
	}
	if m, ok := table.Containing(abs); ok && m.IsEnvfs() {
		return about(name, errShownInMount)
	}
	return nil
}

// sumUp writes counts as a phrase, leaving out what there is none of.
func sumUp(c volume.TransferCount) string {
	parts := []string{fmt.Sprintf("%s of %s", countFiles(c.Files), size(c.Bytes))}
	for _, row := range []struct {
		n         int64
		one, many string
	}{
		{c.Directories, "directory", "directories"},
		{c.Symlinks, "symbolic link", "symbolic links"},
		{c.Special, "special file", "special files"},
		{c.Links, "hard link", "hard links"},
	} {
		switch {
		case row.n == 1:
			parts = append(parts, "1 "+row.one)
		case row.n > 1:
			parts = append(parts, number(row.n)+" "+row.many)
		}
	}
	text := strings.Join(parts, ", ")
	if c.Failed > 0 {
		text += fmt.Sprintf("; %s failed", number(c.Failed))
	}
	return text
}

// warnOfOwners says that a copy belongs to somebody else than the original.
func warnOfOwners(a *app, c volume.TransferCount) {
	if c.OwnersLost > 0 {
		a.warn("owner or group of %s entries could not be kept, as only root may give files away", number(c.OwnersLost))
	}
}
