package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fioArgs begins all calls of fio: one process, one file.
func (s *subject) fioArgs(more ...string) []string {
	args := []string{
		"fio", "--name=x", "--directory=" + s.dir, "--filename=fio.dat", fmt.Sprintf("--size=%dM", s.work.randomMiB), "--ioengine=psync",
	}
	return append(args, more...)
}

// fioFile writes the file that the rows of fio use.
func (s *subject) fioFile() error {
	_, err := s.output(s.fioArgs("--rw=write", "--bs=1M")...)
	return err
}

// fio is a step that records the operations of 4 KiB in a second, at random
// places, over some time.
func (s *subject) fio(name, kind string, length time.Duration, more ...string) func() error {
	return func() error {
		args := s.fioArgs("--rw="+kind, "--bs=4k", fmt.Sprintf("--runtime=%dms", length.Milliseconds()),
			"--time_based", "--norandommap", "--output-format=json")
		out, err := s.output(append(args, more...)...)
		if err != nil {
			return err
		}
		iops, err := parseFio(out, kind)
		if err == nil {
			s.record(name, iops)
		}
		return err
	}
}

// parseFio finds the result in what fio prints, which may begin with warnings.
func parseFio(out, kind string) (float64, error) {
	type result struct{ IOPS float64 }
	var report struct {
		Jobs []struct{ Read, Write result }
	}
	_, object, found := strings.Cut(out, "{")
	if !found {
		return 0, errors.New("fio prints no result: " + out)
	}
	if err := json.NewDecoder(strings.NewReader("{" + object)).Decode(&report); err != nil {
		return 0, fmt.Errorf("what fio prints: %w", err)
	}
	if len(report.Jobs) != 1 {
		return 0, fmt.Errorf("fio reports on %d jobs", len(report.Jobs))
	}
	if strings.Contains(kind, "read") {
		return report.Jobs[0].Read.IOPS, nil
	}
	return report.Jobs[0].Write.IOPS, nil
}
