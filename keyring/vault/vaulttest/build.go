package vaulttest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Binary returns the path of the server program, which it builds if need be.
// That takes some minutes the first time on a machine.
func Binary(tb testing.TB) string {
	tb.Helper()
	if os.Getenv("ENVFS_TEST_VAULT") == "skip" {
		tb.Skip("needs a Vault server, which ENVFS_TEST_VAULT=skip forbids")
	}
	path, err := build()
	if err != nil {
		tb.Fatalf("the Vault server for tests cannot be built (ENVFS_TEST_VAULT=skip skips these tests): %v", err)
	}
	return path
}

// build returns the path of the program for the present sources. Processes that
// need it at the same time build it once, under a file lock.
func build() (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	hash, err := sourceHash(source)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "envfs-test")
	binary := filepath.Join(cache, "vaultserver-"+hash)
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "vaultserver.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil // built while this one waited
	}
	fresh := binary + ".new"
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", fresh, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build in %s: %w\n%s", source, err, out)
	}
	return binary, os.Rename(fresh, binary)
}

// sourceDir finds integration/vaultserver in the module that the test is of.
func sourceDir() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	dir := filepath.Join(root, "integration", "vaultserver")
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return "", err
	}
	return dir, nil
}

// sourceHash names a version of the sources.
func sourceHash(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", errors.New("no sources in " + dir)
	}
	files = append(files, filepath.Join(dir, "go.mod"), filepath.Join(dir, "go.sum"))
	sort.Strings(files)
	h := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(b), b)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
