package volume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadConfigErrors(t *testing.T) {
	good := string(goldenConfigs(t)["vault.json"])
	config := func(dir string) string { return filepath.Join(dir, ConfigName) }
	for name, test := range map[string]struct {
		make  func(dir string) error
		class error
	}{
		"no envfs.json": {func(string) error { return nil }, ErrNotVolume},
		"no directory":  {os.Remove, fs.ErrNotExist},
		"a file in its place": {func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, []byte(good), 0o600))
		}, ErrNotVolume},
		"empty":     {func(dir string) error { return os.WriteFile(config(dir), nil, 0o600) }, ErrDamagedConfig},
		"cut short": {func(dir string) error { return os.WriteFile(config(dir), []byte(good[:300]), 0o600) }, ErrDamagedConfig},
		"huge": {func(dir string) error {
			return errors.Join(os.WriteFile(config(dir), []byte(good), 0o600), os.Truncate(config(dir), 1<<40))
		}, ErrDamagedConfig},
		"newer": {func(dir string) error {
			return os.WriteFile(config(dir), []byte(`{"format": 7}`), 0o600)
		}, ErrNewerFormat},
		"fifo":      {func(dir string) error { return unix.Mkfifo(config(dir), 0o600) }, ErrDamagedConfig},
		"directory": {func(dir string) error { return os.Mkdir(config(dir), 0o700) }, ErrDamagedConfig},
		"symbolic link": {func(dir string) error {
			other := filepath.Join(filepath.Dir(dir), "other.json")
			return errors.Join(os.WriteFile(other, []byte(good), 0o600), os.Symlink(other, config(dir)))
		}, ErrDamagedConfig},
		"dangling link": {func(dir string) error { return os.Symlink("nowhere", config(dir)) }, ErrDamagedConfig},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cipher")
			if err := errors.Join(os.Mkdir(dir, 0o700), test.make(dir)); err != nil {
				t.Fatal(err)
			}
			c, err := ReadConfig(dir)
			if c != nil || !errors.Is(err, test.class) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%+v, %v; want %v with the path", c, err, test.class)
			}
		})
	}
}

func TestReadConfigThroughLinkedDirectory(t *testing.T) {
	dir, cfg := initVolume(t, newTestKeyring(), InitOptions{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadConfig(link); err != nil || !sameConfig(got, cfg) {
		t.Errorf("through a link: %v", err)
	}
}
