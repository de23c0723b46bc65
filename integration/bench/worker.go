package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// workerArgument as the first argument makes this program one that does the
// work of a row and nothing else. It makes the system calls that the simplest
// Python program for the same work makes, in the same order, so that the rows
// stay comparable with figures taken by such a program.
const workerArgument = "-bench-worker"

func isWorker(args []string) bool { return len(args) > 0 && args[0] == workerArgument }

// workerMain runs "append PATH COUNT", "create DIR COUNT", or a row of scaling as "KIND DIR MIB JOBS".
func workerMain(args []string, stderr io.Writer) int {
	if len(args) < 4 {
		fmt.Fprintln(stderr, "bench: this is for the program itself")
		return 2
	}
	if err := doWork(args[1], args[2], args[3:]); err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func doWork(kind, path string, numbers []string) error {
	var counts []int
	for _, n := range numbers {
		count, err := strconv.Atoi(n)
		if err != nil {
			return err
		}
		counts = append(counts, count)
	}
	switch {
	case kind == "append" && len(counts) == 1:
		return appendBytes(path, counts[0])
	case kind == "create" && len(counts) == 1:
		return createFiles(path, counts[0])
	case isScaleKind(kind) && len(counts) == 2:
		return scaleWork(kind, path, counts[0], counts[1])
	}
	return fmt.Errorf("%q with %d numbers is no work", kind, len(counts))
}

// appendBytes appends 100 bytes a call to one file.
func appendBytes(path string, calls int) error {
	fd, err := openNew(path, unix.O_APPEND)
	if err != nil {
		return err
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		return err
	}
	data := make([]byte, 100)
	for i := range data {
		data[i] = 'x'
	}
	for range calls {
		if err := writeAll(fd, data); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}

// createFiles makes a folder and small files in it.
func createFiles(dir string, count int) error {
	if err := unix.Mkdir(dir, 0o777); err != nil {
		return err
	}
	data := []byte("hello")
	for i := range count {
		fd, err := openNew(filepath.Join(dir, strconv.Itoa(i)), unix.O_TRUNC)
		if err != nil {
			return err
		}
		_, _ = unix.IoctlGetTermios(fd, unix.TCGETS) // is it a terminal? No.
		if _, err := unix.Seek(fd, 0, unix.SEEK_CUR); err != nil {
			return err
		}
		if err := writeAll(fd, data); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	return nil
}

// openNew opens a file for writing, makes it if need be, and looks at it.
func openNew(path string, flags int) (int, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o666)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	var st unix.Stat_t
	return fd, unix.Fstat(fd, &st)
}

// writeAll writes data in one call.
func writeAll(fd int, data []byte) error {
	n, err := unix.Write(fd, data)
	if err == nil && n != len(data) {
		err = io.ErrShortWrite
	}
	return err
}
