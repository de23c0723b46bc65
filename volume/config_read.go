package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ReadConfig reads and parses dir/envfs.json. Nothing it returns is
// authenticated before Open. Errors: fs.ErrNotExist (no such directory),
// ErrNotVolume, ErrNewerFormat, ErrDamagedConfig, or one of reading.
func ReadConfig(dir string) (*Config, error) {
	r, err := openRoot(nil, dir)
	if err != nil {
		return nil, err
	}
	c, err := r.readConfig()
	return c, errors.Join(err, r.close())
}

// ReadConfigFile is ReadConfig for a copy of envfs.json that may have any name.
func ReadConfigFile(path string) (_ *Config, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, damaged("%v", ErrNotRegular))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func (r *root) readConfig() (*Config, error) {
	f, err := r.openConfig(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, maxConfigSize+1)
	n, err := r.store.ReadAt(int(f.Fd()), buf, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, r.failed("read", ConfigName, err)
	}
	c, err := parseConfig(buf[:n])
	if err != nil {
		return nil, r.configError(err)
	}
	return c, nil
}

// openConfig opens envfs.json if it is a regular file. Anything else is not
// opened at all: opening a fifo waits and opening a device acts. Should it be
// exchanged between look and open, O_NONBLOCK and the second look help.
func (r *root) openConfig(flags int) (*os.File, error) {
	var st unix.Stat_t
	err := r.store.StatAt(r.fd(), ConfigName, &st)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%s: %w", r.path, ErrNotVolume)
	case err != nil:
		return nil, r.failed("stat", ConfigName, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, r.configError(damaged("%v", ErrNotRegular))
	}
	fd, err := r.store.Open(r.fd(), ConfigName, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, r.failed("open", ConfigName, err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(r.path, ConfigName))
	if err := r.store.Stat(fd, &st); err != nil {
		return nil, errors.Join(r.failed("stat", ConfigName, err), f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(r.configError(damaged("%v", ErrNotRegular)), f.Close())
	}
	return f, nil
}

func (r *root) configError(err error) error {
	return fmt.Errorf("%s: %w", filepath.Join(r.path, ConfigName), err)
}
