package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/volume"
)

// pathAttribute is the attribute by which a mount tells the ciphertext path of
// each of its files, relative to the ciphertext directory.
const pathAttribute = "system.envfs.path"

// place is something in a volume: where its ciphertext is.
type place struct {
	volume    string // ciphertext directory
	rel       string // ciphertext path below it; "." is the volume itself
	plaintext string // plaintext path below the root; "" if not known
}

func (p place) ciphertext() string { return filepath.Join(p.volume, p.rel) }

// locate finds the volume to which a path belongs: a path in a mount, or one
// in a ciphertext directory. A symbolic link at its end is not followed.
func locate(name string) (place, error) {
	abs, err := resolveParent(name)
	if err != nil {
		return place{}, err
	}
	if _, err := os.Lstat(abs); err != nil {
		return place{}, err
	}
	table, err := mounts.Read()
	if err != nil {
		return place{}, err
	}
	if m, ok := table.Containing(abs); ok && m.IsEnvfs() {
		return locateInMount(m, abs)
	}
	return locateInVolume(abs)
}

// resolveParent makes a path absolute and free of symbolic links, but for the
// last element of it.
func resolveParent(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if st, err := os.Lstat(abs); err == nil && st.Mode()&fs.ModeSymlink == 0 {
		return filepath.EvalSymlinks(abs)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(parent, filepath.Base(abs)), err
}

func locateInMount(m mounts.Mount, abs string) (place, error) {
	below, err := filepath.Rel(m.Point, abs)
	if err != nil {
		return place{}, err
	}
	plain := strings.TrimPrefix(path.Join(m.Root, below), "/") // a bind mount shows only a part
	if plain == "" || plain == "." {
		return place{volume: m.Source, rel: ".", plaintext: "."}, nil
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Lgetxattr(abs, pathAttribute, buf)
	if err != nil {
		return place{}, fmt.Errorf("%s: asking the mount for the ciphertext path: %w", abs, err)
	}
	rel := string(buf[:n])
	if !filepath.IsLocal(rel) {
		return place{}, fmt.Errorf("%s: the mount names a ciphertext path outside the volume: %q", abs, rel)
	}
	return place{volume: m.Source, rel: filepath.Clean(rel), plaintext: plain}, nil
}

// locateInVolume looks for the nearest directory above that is a volume.
func locateInVolume(abs string) (place, error) {
	for dir := abs; ; dir = filepath.Dir(dir) {
		_, err := os.Lstat(filepath.Join(dir, volume.ConfigName))
		if err == nil {
			rel, err := filepath.Rel(dir, abs)
			return place{volume: dir, rel: rel}, err
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return place{}, err
		}
		if dir == "/" {
			return place{}, about(abs, errNoVolume)
		}
	}
}

// kind names the type of the ciphertext, which is that of the plaintext too.
func (p place) kind() (string, error) {
	st, err := os.Lstat(p.ciphertext())
	if err != nil {
		return "", err
	}
	switch mode := st.Mode(); mode.Type() {
	case 0:
		return "file", nil
	case fs.ModeDir:
		return "directory", nil
	case fs.ModeSymlink:
		return "symlink", nil
	case fs.ModeNamedPipe:
		return "fifo", nil
	case fs.ModeSocket:
		return "socket", nil
	}
	return "device", nil
}

// mounts lists where the volume is mounted. It is for information: that it
// cannot be found out is no error.
func (p place) mounts() []infoMount {
	table, err := mounts.Read()
	if err != nil {
		return nil
	}
	var found []infoMount
	for _, m := range table.OfSource(p.volume) {
		found = append(found, infoMount{Mountpoint: m.Point, ReadOnly: m.ReadOnly()})
	}
	return found
}
