package main

import (
	"bytes"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/local"
	"github.com/envfs/envfs/volume"
)

func TestOpenWipesThePassphrase(t *testing.T) {
	arena := secret.NewArena(nil)
	kr, cfg, err := local.Create(arena, []byte("correct horse"), local.MinParams())
	if err != nil {
		t.Fatal(err)
	}
	kr.Close()
	ref, err := localRef(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"correct horse", "battery staple"} {
		passphrase := []byte(text)
		opened, err := keyringOpener{arena: arena}.open(t.Context(), &volume.Config{Keyring: ref}, passphrase)
		if right := text == "correct horse"; right != (err == nil) {
			t.Errorf("%q gives %v", text, err)
		}
		if err == nil {
			opened.Close()
		}
		if !bytes.Equal(passphrase, make([]byte, len(text))) {
			t.Errorf("%q was not wiped", text)
		}
	}
}

func TestAtHand(t *testing.T) {
	env := map[string]string{}
	a := &app{env: func(name string) (string, bool) { value, ok := env[name]; return value, ok }}
	local := &volume.Config{Keyring: volume.KeyringRef{Type: volume.KeyringLocal}}
	vault := &volume.Config{Keyring: volume.KeyringRef{Type: volume.KeyringVault}}
	for _, test := range []struct {
		keys         keySettings
		local, vault bool
	}{
		{keySettings{}, false, false},
		{keySettings{PassphraseFile: "f"}, true, false},
		{keySettings{PassphraseCommand: "c"}, true, false},
		{keySettings{VaultAddr: "http://v"}, false, true},
	} {
		if got := test.keys.atHand(a, local); got != test.local {
			t.Errorf("%+v: passphrase at hand: %v", test.keys, got)
		}
		if got := test.keys.atHand(a, vault); got != test.vault {
			t.Errorf("%+v: vault at hand: %v", test.keys, got)
		}
	}
	env["VAULT_ADDR"] = "http://v"
	if k := (keySettings{}); !k.atHand(a, vault) || k.atHand(a, local) {
		t.Error("VAULT_ADDR is not minded")
	}
}
