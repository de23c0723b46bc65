package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// workload is how much work the rows are.
type workload struct {
	sequentialMiB int           // seq_write and those that read it or write it again; each row of scaling, for all jobs together
	smallCalls    int           // write_4k: calls of 4 KiB
	appends       int           // append_100B: calls of 100 bytes
	randomMiB     int           // size of the file of the rand_ rows
	randomTime    time.Duration // rand_read_cold and rand_write
	syncTime      time.Duration // rand_write_fsync
	creates       int           // create_10k: files
	tree          []string      // what of GOROOT is in the tree of untar
}

// fullWorkload is what figures are made with.
func fullWorkload(sequentialMiB int) workload {
	return workload{
		sequentialMiB: sequentialMiB, smallCalls: 16384, appends: 200_000,
		randomMiB: 256, randomTime: 5 * time.Second, syncTime: 3 * time.Second,
		creates: 10_000, tree: []string{"src"},
	}
}

// tinyWorkload shows that all rows work.
func tinyWorkload() workload {
	return workload{
		sequentialMiB: 8, smallCalls: 64, appends: 500,
		randomMiB: 1, randomTime: 100 * time.Millisecond, syncTime: 100 * time.Millisecond,
		creates: 50, tree: []string{"src/archive", "src/hash"},
	}
}

// tree is the archive that is unpacked: the sources of Go, below "src".
type tree struct {
	path  string
	files int // regular files in it
}

// makeTree packs parts of GOROOT.
func makeTree(commands *runner, path string, parts []string) (tree, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return tree{}, fmt.Errorf("go env GOROOT: %w", err)
	}
	src, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src"))
	if err != nil {
		return tree{}, err
	}
	if filepath.Base(src) != "src" {
		return tree{}, errors.New("the sources of Go are not in a folder src: " + src)
	}
	root := filepath.Dir(src)
	t := tree{path: path}
	for _, part := range parts {
		if err := filepath.WalkDir(filepath.Join(root, part), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				t.files++
			}
			return err
		}); err != nil {
			return tree{}, err
		}
	}
	_, err = commands.timed(append([]string{"tar", "-c", "-f", path, "--sort=name", "-C", root}, parts...)...)
	return t, err
}
