package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

func TestUpdateKeyring(t *testing.T) {
	kr := newTestKeyring()
	dir, before := initVolume(t, kr, InitOptions{})
	path := filepath.Join(dir, ConfigName)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 54321); err != nil {
			t.Fatal(err)
		}
	}
	var old, updated unix.Stat_t
	if err := unix.Stat(path, &old); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, tempName()), "half a conf")
	mounted := mustOpen(t, dir, kr, OpenOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
	if err := v.UpdateKeyring(localRef("second")); err != nil {
		t.Fatal(err)
	}
	if err := mounted.UpdateKeyring(localRef("third")); err != nil {
		t.Fatal(err)
	}
	c := mustOpen(t, dir, kr, OpenOptions{Unlocked: true}).cfg
	if note(t, c) != "third" || c.VolumeID != before.VolumeID || c.WrappedVolumeKey != before.WrappedVolumeKey {
		t.Errorf("config is %+v", c)
	}
	if err := unix.Stat(path, &updated); err != nil {
		t.Fatal(err)
	}
	if updated.Mode != old.Mode || updated.Uid != old.Uid || updated.Gid != old.Gid {
		t.Errorf("attributes were %+v, are %+v", old, updated)
	}
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("left behind: %q", got)
	}
}

// TestUpdateKeepsRewrap: a volume key rewrapped since Open stays rewrapped.
func TestUpdateKeepsRewrap(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
	payload, err := unwrapVolumeKey(t.Context(), kr, cfg.WrappedVolumeKey)
	if err != nil {
		t.Fatal(err)
	}
	defer payload.Wipe()
	rewrapped := *cfg
	rewrapped.WrappedVolumeKey = wrapOne(t, kr, payload)
	writeFile(t, filepath.Join(dir, ConfigName), string(forged(t, &rewrapped)))
	if err := v.UpdateKeyring(localRef("second")); err != nil {
		t.Fatal(err)
	}
	c := mustOpen(t, dir, kr, OpenOptions{}).cfg
	if c.WrappedVolumeKey != rewrapped.WrappedVolumeKey || note(t, c) != "second" {
		t.Errorf("config is %+v", c)
	}
}

func TestUpdateRefuses(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	otherDir, _ := initVolume(t, kr, InitOptions{})
	path := filepath.Join(dir, ConfigName)
	good := readFile(t, path)
	evil := *cfg
	evil.Names = NamesPlaintext
	for name, test := range map[string]struct {
		options OpenOptions
		ref     KeyringRef
		disk    string
		class   error // nil: any error
	}{
		"read-only":           {OpenOptions{ReadOnly: true}, localRef("x"), good, unix.EROFS},
		"another type":        {OpenOptions{}, KeyringRef{Type: KeyringVault, Vault: &VaultRef{"t", "k"}}, good, nil},
		"bad reference":       {OpenOptions{}, KeyringRef{Type: KeyringLocal}, good, ErrBadReference},
		"forged meanwhile":    {OpenOptions{}, localRef("x"), string(forged(t, &evil)), ErrForgedConfig},
		"damaged meanwhile":   {OpenOptions{}, localRef("x"), good[:100], ErrDamagedConfig},
		"exchanged meanwhile": {OpenOptions{}, localRef("x"), readFile(t, filepath.Join(otherDir, ConfigName)), ErrForgedConfig},
	} {
		writeFile(t, path, good)
		v, err := openVolume(t.Context(), dir, kr, test.options)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, test.disk)
		err = v.UpdateKeyring(test.ref)
		if err == nil || test.class != nil && !errors.Is(err, test.class) {
			t.Errorf("%s: %v", name, err)
		}
		if readFile(t, path) != test.disk {
			t.Errorf("%s: the config was changed", name)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpdateFaults fails each call in turn: the old section or the new one,
// and success only with the new.
func TestUpdateFaults(t *testing.T) {
	kr := newTestKeyring()
	for at := int64(1); ; at++ {
		if at > maxCalls {
			t.Fatal("the update never succeeds")
		}
		dir, _ := initVolume(t, kr, InitOptions{Ref: localRef("old")})
		v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
		h := &hook{at: at, action: func() error { return unix.EIO }}
		plain := v.store
		v.store = &backing.Store{Hook: h}
		err := v.UpdateKeyring(localRef("new"))
		v.store = plain
		got := note(t, mustOpen(t, dir, kr, OpenOptions{}).cfg)
		if h.count.Load() < at {
			if err != nil || got != "new" || at < 8 {
				t.Errorf("%d calls, none of which failed: %v, config %s", at-1, err, got)
			}
			return
		}
		if !errors.Is(err, unix.EIO) {
			t.Errorf("call %d fails with EIO, the update with %v", at, err)
		}
		if got != "old" && got != "new" {
			t.Errorf("call %d fails: config is %s", at, got)
		}
	}
}

// TestUpdateConcurrent: every update happens, one after the other.
func TestUpdateConcurrent(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	var all sync.WaitGroup
	for i := range 8 {
		v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
		all.Go(func() {
			for j := range 5 {
				if err := v.UpdateKeyring(localRef(strconv.Itoa(i*10 + j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	c := mustOpen(t, dir, kr, OpenOptions{}).cfg
	if last, err := strconv.Atoi(note(t, c)); err != nil || last%10 != 4 {
		t.Errorf("the last update is %s", note(t, c))
	}
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("left behind: %q", got)
	}
}
