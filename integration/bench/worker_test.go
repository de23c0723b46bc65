package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
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

// TestScaleWork: all bytes are written whoever writes them, and read.
func TestScaleWork(t *testing.T) {
	r := &runner{ctx: t.Context()}
	for _, jobs := range scaleJobs {
		dir := t.TempDir()
		for _, kind := range scaleKinds {
			if _, err := r.worker(kind, dir, "8", strconv.Itoa(jobs)); err != nil {
				t.Fatalf("%s by %d: %v", kind, jobs, err)
			}
		}
		for i := range jobs {
			if st, err := os.Stat(filepath.Join(dir, strconv.Itoa(i))); err != nil || st.Size() != 8<<20/int64(jobs) {
				t.Errorf("file %d of %d: %v, %v", i, jobs, st, err)
			}
		}
		if st, err := os.Stat(filepath.Join(dir, "one")); err != nil || st.Size() != 8<<20 {
			t.Errorf("one file by %d: %v, %v", jobs, st, err)
		}
		if _, err := r.worker("read_file", dir, "16", strconv.Itoa(jobs)); err == nil {
			t.Errorf("%d jobs read what is not there", jobs)
		}
	}
}

func TestWorkerFails(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"append", dir, "1"}, {"create", dir, "1"}, {"create", dir + "/missing/c", "1"}, {"append", dir + "/a", "many"}, {"dance", dir, "1"}, {"append"}, {"read_files", dir, "1", "2"}, {"write_file", dir, "1"},
	} {
		_, err := (&runner{ctx: t.Context()}).worker(args...)
		if err == nil || !strings.Contains(err.Error(), "bench: ") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
