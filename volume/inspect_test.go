package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
)

func TestInspect(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{})
	path := func(rel string) string {
		stored, err := v.EncryptPath(rel)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, stored)
	}
	for _, d := range []string{path("d"), path("d/e"), filepath.Join(dir, "lost+found")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for rel, size := range map[string]int64{
		"empty": 0, "header": 1024, "d/byte": 1024 + 41, "d/e/block": 1024 + 4136, "torn": 1024 + 4136 + 40, "short": 1023,
	} {
		writeFile(t, path(rel), "")
		if err := os.Truncate(path(rel), size); err != nil {
			t.Fatal(err)
		}
	}
	longDir(t, v)
	if err := os.Symlink("x", path("link")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "README"), "foreign")
	writeFile(t, filepath.Join(dir, "lost+found", "x"), "foreign")
	info, err := Inspect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Path != dir || info.VolumeID != cfg.VolumeID || info.SlotSize != 512 || info.Format != 1 ||
		info.Names != NamesEncrypted || info.Keyring != (KeyringInfo{Type: KeyringLocal}) || info.KEKVersion != 7 {
		t.Errorf("volume: %+v", info)
	}
	want := TreeInfo{
		Files: 6, Directories: 3, Others: 1, Foreign: 2,
		Ciphertext: 1024 + 1024 + 41 + 1024 + 4136 + 1024 + 4136 + 40 + 1023, Plaintext: 1 + 4096 + 4096,
	}
	if info.Tree != want {
		t.Errorf("tree: %+v, want %+v", info.Tree, want)
	}
}

func TestInspectVaultAndPlaintextNames(t *testing.T) {
	ref := KeyringRef{Type: KeyringVault, Vault: &VaultRef{Mount: "transit", Key: "docs"}}
	dir, _ := initVolume(t, newTestKeyring(), InitOptions{PlaintextNames: true, Ref: ref})
	writeFile(t, filepath.Join(dir, "a"), strings.Repeat("x", 2000))
	writeFile(t, filepath.Join(dir, "envfs.other"), "x")
	info, err := Inspect(dir)
	if err != nil || info.Keyring != (KeyringInfo{Type: KeyringVault, Mount: "transit", Key: "docs"}) {
		t.Errorf("%+v, %v", info, err)
	}
	if info.Tree != (TreeInfo{Files: 1, Ciphertext: 2000, Plaintext: 936}) {
		t.Errorf("tree: %+v", info.Tree)
	}
}

func TestInspectErrors(t *testing.T) {
	if _, err := Inspect(t.TempDir()); !errors.Is(err, ErrNotVolume) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Inspect(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// testSlots makes a header of two slots with sequence numbers 4 and 5.
func testSlots(t testing.TB, slotSize int, h crypto.Header) []byte {
	t.Helper()
	mac := crypto.NewHeaderMAC(goldenKey())
	header := make([]byte, 2*slotSize)
	for i := range 2 {
		slot := crypto.Slot{Sequence: uint64(4 + i), Wrapped: "vault:v3:QUJD", Sealed: mac.Seal(h)}
		if i == 0 {
			slot.Wrapped = "vault:v2:QUJD"
		}
		if err := crypto.EncodeSlot(header[i*slotSize:(i+1)*slotSize], slot); err != nil {
			t.Fatal(err)
		}
	}
	return header
}
