package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
	"github.com/envfs/envfs/volume"
)

// rewrapPolicy is all that a rewrap needs.
const rewrapPolicy = `
path "transit/rewrap/docs" { capabilities = ["update"] }
path "transit/keys/docs"   { capabilities = ["read"] }`

// runApp carries out a command in this process.
func runApp(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	a := &app{stdin: null, stdout: &out, stderr: &errs, env: os.LookupEnv, protect: func(*slog.Logger) {}}
	code = a.run(append([]string{"envfs"}, args...))
	return code, out.String(), errs.String()
}

// vaultVolume makes a volume with a key of a real Vault, and files in it.
func vaultVolume(t testing.TB, s *vaulttest.Server, files int) string {
	t.Helper()
	s.CreateKey("docs", nil)
	s.Policy("rewrap", rewrapPolicy)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_ADDR", s.Address)
	t.Setenv("VAULT_TOKEN", s.RootToken)
	dir := filepath.Join(t.TempDir(), "vol")
	if code, _, errs := runApp(t, "init", "--keyring", "vault", "--transit-key", "docs", dir); code != 0 {
		t.Fatalf("init: %s", errs)
	}
	populate(t, dir, files)
	t.Setenv("VAULT_TOKEN", s.Token(0, "rewrap"))
	return dir
}

// populate writes files as a mount does, each with one block.
func populate(t testing.TB, dir string, files int) {
	t.Helper()
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	arena := secret.NewArena(nil)
	kr, err := vault.Open(t.Context(), vault.Options{Arena: arena, Mount: "transit", Key: "docs"})
	if err != nil {
		t.Fatal(err)
	}
	defer kr.Close()
	v, err := volume.Open(t.Context(), dir, cfg, kr, volume.OpenOptions{Arena: arena, Pool: keyring.PoolOptions{Size: 4096}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range files {
		writeOne(t, v, dir, fmt.Sprintf("dir%d/file%d", i/200, i))
	}
}

type noEvents struct{}

func (noEvents) Sealed(_, _ unix.Timespec) {}
func (noEvents) Closed()                   {}

func writeOne(t testing.TB, v *volume.Volume, dir, plain string) {
	t.Helper()
	stored, err := v.EncryptPath(plain)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, stored)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WaitForRoom(context.Background()); err != nil {
		t.Fatal(err)
	}
	key, err := v.NewKey(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.NewFile(fd, key, noEvents{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("Dear reader "+plain), 0); err != nil {
		t.Fatal(err)
	}
	f.Release()
}

// TestRewrapWithVault rewraps with a token that may do nothing else, and then has the old version disabled.
func TestRewrapWithVault(t *testing.T) {
	s := vaulttest.Start(t)
	const files = 700
	dir := vaultVolume(t, s, files)
	s.RotateKey("docs")

	audit := filepath.Join(t.TempDir(), "audit")
	code, out, errs := runApp(t, "rewrap", "--json", "--audit-log", audit, dir)
	var report rewrapReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || errs != "" {
		t.Fatalf("code %d, %v, %s%s", code, err, out, errs)
	}
	if report.Rewrapped != files || report.Version != 2 || !report.VolumeKey || report.Failures == nil {
		t.Errorf("%+v", report)
	}
	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
	if code, out, errs := runApp(t, "info", "--require-version", "2", dir); code != 0 {
		t.Errorf("info: code %d\n%s%s", code, out, errs)
	}
	if code, out, _ := runApp(t, "rewrap", dir); code != 0 || !strings.HasPrefix(out, "rewrapped 0 files to key version 2, 700 had it") {
		t.Errorf("once more: code %d, %s", code, out)
	}
	t.Setenv("VAULT_TOKEN", s.RootToken)
	checkOne(t, dir, "dir0/file7")
	checkOne(t, dir, "dir3/file699")

	// Who may not rewrap is told so, and nothing changes.
	s.RotateKey("docs")
	s.Policy("reader", `path "transit/keys/docs" { capabilities = ["read"] }`)
	t.Setenv("VAULT_TOKEN", s.Token(0, "reader"))
	if code, _, errs := runApp(t, "rewrap", "--audit-log", audit, dir); code != exitDenied || !strings.Contains(errs, "access denied") {
		t.Errorf("without the right: code %d, %s", code, errs)
	}
	// A key that was lost: what the server refuses are the items.
	t.Setenv("VAULT_TOKEN", s.Token(0, "rewrap"))
	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 3})
	if code, _, errs := runApp(t, "rewrap", "--audit-log", audit, dir); code != exitDenied || !strings.Contains(errs, "volume key") {
		t.Errorf("of a version that is disabled: code %d, %s", code, errs)
	}
	s.Kill()
	if code, _, errs := runApp(t, "rewrap", "--audit-log", audit, dir); code != exitUnreachable {
		t.Errorf("without Vault: code %d, %s", code, errs)
	}
	wantOutcomes(t, audit, map[string]int{"ok 2": files + 1, "EACCES 0": 1, "EKEYREVOKED 0": 1, "ENOKEY 0": 1})
}

// wantOutcomes counts the lines of an audit log by outcome and key version.
func wantOutcomes(t *testing.T, file string, want map[string]int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var r struct {
			Op, Outcome string
			KEK         int `json:"kek_version"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Op != "rewrap" {
			t.Errorf("%v: %s", err, line)
		}
		got[fmt.Sprint(r.Outcome, " ", r.KEK)]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s holds %v, want %v", filepath.Base(file), got, want)
	}
}

// checkOne opens a file with its key and reads it.
func checkOne(t *testing.T, dir, plain string) {
	t.Helper()
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	arena := secret.NewArena(nil)
	kr, err := vault.Open(t.Context(), vault.Options{Arena: arena, Mount: "transit", Key: "docs"})
	if err != nil {
		t.Fatal(err)
	}
	defer kr.Close()
	v, err := volume.Open(t.Context(), dir, cfg, kr, volume.OpenOptions{Arena: arena, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	stored, err := v.EncryptPath(plain)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(dir, stored), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	f, err := v.OpenFile(t.Context(), fd, st.Size, false, noEvents{})
	if err != nil {
		t.Fatalf("%s: %v", plain, err)
	}
	defer f.Release()
	buf := make([]byte, crypto.BlockSize)
	n, err := f.ReadAt(buf, 0)
	if got := string(buf[:n]); err != nil || got != "Dear reader "+plain {
		t.Errorf("%s: %q, %v", plain, got, err)
	}
}

// BenchmarkRewrap moves 100,000 files to the next version, offline, against a real Vault on this machine.
func BenchmarkRewrap(b *testing.B) {
	s := vaulttest.Start(b)
	files := 100_000
	if testing.Short() {
		files = 2_000
	}
	dir := vaultVolume(b, s, files)
	for b.Loop() {
		b.StopTimer()
		s.RotateKey("docs")
		unix.Sync()
		b.StartTimer()
		if code, out, errs := runApp(b, "rewrap", dir); code != 0 {
			b.Fatalf("code %d, %s%s", code, out, errs)
		}
	}
	b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
