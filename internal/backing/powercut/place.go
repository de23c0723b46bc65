package powercut

import (
	"os"
	"strconv"
	"testing"
)

// TempDir returns a directory of the test, in memory where the system has such a place, which is many times faster: nothing
// here needs a real disk.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "powercut-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Count returns how many power cuts a test should make: n, or as many times that as ENVFS_POWERCUTS says.
func Count(t testing.TB, n int) int {
	t.Helper()
	text := os.Getenv("ENVFS_POWERCUTS")
	if text == "" {
		return n
	}
	times, err := strconv.Atoi(text)
	if err != nil || times < 1 {
		t.Fatalf("ENVFS_POWERCUTS: %q is no number of times", text)
	}
	return n * times
}

// Seed returns where the choices of a test begin: ENVFS_SEED, or the number given.
func Seed(t testing.TB, seed uint64) uint64 {
	t.Helper()
	text := os.Getenv("ENVFS_SEED")
	if text == "" {
		return seed
	}
	given, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("ENVFS_SEED: %v", err)
	}
	return given
}
