package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

func TestInit(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("the new volume holds %q", got)
	}
	for path, want := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, filepath.Join(dir, ConfigName): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
	read, err := ReadConfig(dir)
	if err != nil || !sameConfig(read, cfg) {
		t.Fatalf("read back: %v, %+v", err, read)
	}
	if read.SlotSize != 512 || read.Names != NamesEncrypted || read.Format != Format {
		t.Errorf("config: %+v", read)
	}
	mustOpen(t, dir, kr, OpenOptions{})
}

func TestInitOptions(t *testing.T) {
	kr := newTestKeyring()
	id := crypto.NewID()
	_, cfg := initVolume(t, kr, InitOptions{VolumeID: id, PlaintextNames: true})
	if cfg.VolumeID != id || cfg.Names != NamesPlaintext {
		t.Errorf("config: %+v", cfg)
	}
	kr.padding = strings.Repeat("x", 600)
	dir, cfg := initVolume(t, kr, InitOptions{})
	if cfg.SlotSize != 1024 {
		t.Errorf("slot size %d for wrapped keys of %d bytes", cfg.SlotSize, len(cfg.WrappedVolumeKey))
	}
	mustOpen(t, dir, kr, OpenOptions{})
	_, other := initVolume(t, kr, InitOptions{})
	if other.VolumeID == cfg.VolumeID || other.MAC == cfg.MAC {
		t.Error("two volumes have the same ID or MAC")
	}
}

// TestInitRefuses: neither an answer nor a trace in the directory.
func TestInitRefuses(t *testing.T) {
	unreachable := newTestKeyring()
	unreachable.err = fmt.Errorf("cut off: %w", keyring.ErrUnreachable)
	tooLong := newTestKeyring()
	tooLong.padding = strings.Repeat("x", 1024)
	for name, test := range map[string]struct {
		kr      *testKeyring
		options InitOptions
		entries []string // made before, with their names as content; "x/" is a directory
		class   error
	}{
		"unreachable":               {kr: unreachable, class: keyring.ErrUnreachable},
		"wrapped key too long":      {kr: tooLong, class: crypto.ErrWrappedTooLong},
		"bad reference":             {options: InitOptions{Ref: KeyringRef{Type: "kms"}}, class: ErrBadReference},
		"volume":                    {entries: []string{ConfigName}, class: ErrExists},
		"volume, adopt":             {entries: []string{ConfigName}, options: InitOptions{Adopt: true}, class: ErrExists},
		"config is a directory":     {entries: []string{ConfigName + "/"}, options: InitOptions{Adopt: true}, class: ErrExists},
		"file":                      {entries: []string{"a"}, class: ErrNotEmpty},
		"hidden file":               {entries: []string{".a"}, class: ErrNotEmpty},
		"lost+found":                {entries: []string{"lost+found/"}, class: ErrNotEmpty},
		"like a temporary":          {entries: []string{tempPrefix + "mine"}, class: ErrNotEmpty},
		"plaintext names, adopt":    {entries: []string{"a"}, options: InitOptions{Adopt: true, PlaintextNames: true}, class: ErrNotEmpty},
		"asks no one if it is full": {kr: unreachable, entries: []string{"a"}, class: ErrNotEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, test.entries)
			if test.kr == nil {
				test.kr = newTestKeyring()
			}
			cfg, err := Init(t.Context(), dir, initOptions(test.kr, test.options))
			if !errors.Is(err, test.class) || cfg != nil {
				t.Errorf("%+v, %v; want %v", cfg, err, test.class)
			}
			checkFilled(t, dir, test.entries)
		})
	}
}

func fill(t *testing.T, dir string, entries []string) {
	for _, name := range entries {
		if base, isDir := strings.CutSuffix(name, "/"); !isDir {
			writeFile(t, filepath.Join(dir, name), name)
		} else if err := os.Mkdir(filepath.Join(dir, base), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// checkFilled fails unless dir holds what fill made, and the extra names.
func checkFilled(t *testing.T, dir string, entries []string, extra ...string) {
	t.Helper()
	want := slices.Clone(extra)
	for _, name := range entries {
		want = append(want, strings.TrimSuffix(name, "/"))
		if !strings.HasSuffix(name, "/") && readFile(t, filepath.Join(dir, name)) != name {
			t.Errorf("%s was changed", name)
		}
	}
	slices.Sort(want)
	if got := listDir(t, dir); !slices.Equal(got, want) {
		t.Errorf("directory holds %q, want %q", got, want)
	}
}

func TestInitFailureMakesNoDirectory(t *testing.T) {
	kr := newTestKeyring()
	kr.err = keyring.ErrDenied
	dir := filepath.Join(t.TempDir(), "cipher")
	if _, err := Init(t.Context(), dir, initOptions(kr, InitOptions{})); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("init: %v", err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	kr.err = nil
	if _, err := Init(t.Context(), filepath.Join(dir, "below"), initOptions(kr, InitOptions{})); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("init below a missing directory: %v", err)
	}
}

func TestInitAdopt(t *testing.T) {
	leftover := tempName()
	for name, test := range map[string]struct {
		options InitOptions
		entries []string
	}{
		"empty":                        {InitOptions{Adopt: true}, nil},
		"foreign entries":              {InitOptions{Adopt: true}, []string{"a", "lost+found/", "envfs.long.x", tempPrefix + "mine"}},
		"plaintext names, lost+found":  {InitOptions{Adopt: true, PlaintextNames: true}, []string{"lost+found/"}},
		"leftover without being asked": {InitOptions{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir, kr := t.TempDir(), newTestKeyring()
			fill(t, dir, test.entries)
			writeFile(t, filepath.Join(dir, leftover), "half a conf")
			if _, err := Init(t.Context(), dir, initOptions(kr, test.options)); err != nil {
				t.Fatal(err)
			}
			checkFilled(t, dir, test.entries, ConfigName)
			mustOpen(t, dir, kr, OpenOptions{})
		})
	}
}

// TestInitConcurrent: one wins, the others say why, and the volume is the winner's.
func TestInitConcurrent(t *testing.T) {
	kr := newTestKeyring()
	for range 20 {
		dir := filepath.Join(t.TempDir(), "cipher")
		var configs [8]*Config
		var errs [8]error
		var all sync.WaitGroup
		for i := range configs {
			all.Go(func() { configs[i], errs[i] = Init(t.Context(), dir, initOptions(kr, InitOptions{})) })
		}
		all.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("%d and %d both won", winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, ErrExists) && !errors.Is(err, ErrLocked):
				t.Errorf("a loser says %v", err)
			}
		}
		if winner < 0 {
			t.Fatalf("nobody won: %v", errs)
		}
		if got, err := ReadConfig(dir); err != nil || !sameConfig(got, configs[winner]) {
			t.Errorf("the volume is not the winner's: %v", err)
		}
		if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
			t.Errorf("left behind: %q", got)
		}
	}
}

// TestCreateConfigNeverReplaces: even without the lock, the second loses.
func TestCreateConfigNeverReplaces(t *testing.T) {
	for _, refused := range []error{nil, unix.EINVAL} {
		dir, cfg := initVolume(t, newTestKeyring(), InitOptions{})
		r, err := openRoot(failing(refused, "rename"), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.createConfig(cfg); !errors.Is(err, ErrExists) {
			t.Errorf("creating over a config (rename gives %v): %v", refused, err)
		}
		if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
			t.Errorf("left behind: %q", got)
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInitWithoutRenameFlags: a file system that cannot rename without
// replacing gets its config by a hard link.
func TestInitWithoutRenameFlags(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{Store: failing(unix.EINVAL, "rename")})
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("the new volume holds %q", got)
	}
	mustOpen(t, dir, kr, OpenOptions{})
}
