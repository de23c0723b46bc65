package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorker runs the worker as rows do, as a process, and looks at what it has made.
func TestWorker(t *testing.T) {
	dir := t.TempDir()
	r := &runner{ctx: t.Context()}
	file := filepath.Join(dir, "ap")
	for _, total := range []int{300, 600} { // the second run goes on where the first has ended
		if took, err := r.worker("append", file, "3"); err != nil || took <= 0 {
			t.Fatalf("%v, %v", took, err)
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, bytes.Repeat([]byte("x"), total)) {
			t.Errorf("%q, %v, want %d times x", got, err, total)
		}
	}
	if _, err := r.worker("create", filepath.Join(dir, "c"), "12"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "c"))
	if err != nil || len(entries) != 12 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "c", "11")); err != nil || string(got) != "hello" {
		t.Errorf("a file: %q, %v", got, err)
	}
}

func TestWorkerFails(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"append", dir, "1"}, {"create", dir, "1"}, {"create", dir + "/missing/c", "1"}, {"append", dir + "/a", "many"}, {"dance", dir, "1"}, {"append"},
	} {
		_, err := (&runner{ctx: t.Context()}).worker(args...)
		if err == nil || !strings.Contains(err.Error(), "bench: ") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
