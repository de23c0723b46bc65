package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// scaleJobs are the numbers of writers and readers at once in the rows that show whether throughput falls as they grow.
var scaleJobs = []int{1, 2, 4, 8}

// scaleKinds are the rows of scaling, each with every number of jobs: on a file for each job, and on one file of which each has
// its part.
var scaleKinds = []string{"write_files", "read_files", "write_file", "read_file"}

func scaleRow(kind string, jobs int) string { return fmt.Sprintf("%s_by_%d", kind, jobs) }

// scaleGroups are done only if a row of theirs is asked for.
func scaleGroups() (all []group) {
	for _, kinds := range [][]string{scaleKinds[:2], scaleKinds[2:]} {
		for _, jobs := range scaleJobs {
			write, read := kinds[0], kinds[1]
			all = append(all, group{
				rows: []row{{scaleRow(write, jobs), "MB/s", true}, {scaleRow(read, jobs), "MB/s", true}},
				run:  func(s *subject) error { return s.scale(write, read, jobs) },
			})
		}
	}
	return all
}

// scale writes, then reads what was written, cold.
func (s *subject) scale(write, read string, jobs int) error {
	dir := s.path("scale")
	run := func(kind string) func() error {
		return func() error {
			t, err := s.worker(kind, dir, strconv.Itoa(s.work.sequentialMiB), strconv.Itoa(jobs))
			if err == nil {
				s.record(scaleRow(kind, jobs), float64(s.work.sequentialMiB)/t)
			}
			return err
		}
	}
	return steps(func() error { return os.Mkdir(dir, 0o777) }, run(write), s.cold, run(read), s.remove("scale"))
}

func isScaleKind(kind string) bool { return slices.Contains(scaleKinds, kind) }

// scaleCall is the size of a call in bytes.
const scaleCall = 128 << 10

// scaleWork has jobs goroutines move size MiB together, in calls of 128 KiB, and sync what they have written.
func scaleWork(kind, dir string, size, jobs int) error {
	if jobs < 1 || size < jobs {
		return fmt.Errorf("%d MiB for %d jobs", size, jobs)
	}
	var all errgroup.Group
	share := int64(size/jobs) << 20
	for job := range jobs {
		name, off := "one", int64(job)*share
		if strings.HasSuffix(kind, "_files") {
			name, off = strconv.Itoa(job), 0
		}
		all.Go(func() error {
			if strings.HasPrefix(kind, "write") {
				return writeShare(filepath.Join(dir, name), off, share)
			}
			return readShare(filepath.Join(dir, name), off, share)
		})
	}
	return all.Wait()
}

func writeShare(path string, off, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	data := make([]byte, scaleCall)
	for end := off + size; off < end; off += scaleCall {
		if _, err := f.WriteAt(data, off); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func readShare(path string, off, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	data := make([]byte, scaleCall)
	for end := off + size; off < end; off += scaleCall {
		if _, err := f.ReadAt(data, off); err != nil {
			return err
		}
	}
	return f.Close()
}
