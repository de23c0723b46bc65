package main

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
)

// fileFailure is a file with which a command that goes through many had no success. Programs may read it.
type fileFailure struct {
	Path  string `json:"path"` // of the ciphertext, or of the plaintext that is encrypted
	Error string `json:"error"`
	Code  int    `json:"code"` // what the command would exit with, were this the only one
}

// failureList collects the files that failed, and prints each as it comes.
type failureList struct {
	meter *progress.Meter
	dir   string // that paths start from

	mu    sync.Mutex
	files []fileFailure // guarded by mu
	worst error         // guarded by mu
}

func (l *failureList) path(rel string) string { return filepath.Join(l.dir, rel) }

func (l *failureList) add(rel string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := fileFailure{Path: l.path(rel), Error: err.Error(), Code: exitCode(err)}
	l.files = append(l.files, f)
	if l.worst == nil || severity(err) > severity(l.worst) {
		l.worst = err
	}
	l.meter.Println(fmt.Sprintf("envfs: %s: %v", f.Path, err))
}

// severity orders errors by how much the user must know of them.
func severity(err error) int {
	switch exitCode(err) {
	case exitDamage:
		return 3
	case exitDenied:
		return 2
	case exitUnreachable:
		return 1
	}
	return 0
}

// list returns the files, never nil.
func (l *failureList) list() []fileFailure {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]fileFailure{}, l.files...)
}

// err sums up the failures of a command that looked at so many files; nil if there were none. Its class is that of the worst.
func (l *failureList) err(dir string, of int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.files) == 0 {
		return nil
	}
	n := int64(len(l.files))
	text := fmt.Sprintf("%s of %s failed", number(n), countFiles(max(of, n)))
	return about(dir, classedError{text, l.worst})
}

// countFiles writes a number of files.
func countFiles(n int64) string {
	if n == 1 {
		return "1 file"
	}
	return number(n) + " files"
}
