package mounts

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Holder is one reason why a mount is busy.
type Holder struct {
	PID     int
	Command string // name of the process, as in ps
	Use     string // "working directory", "open file", "mapped file", …
	Path    string // what it holds
}

func (h Holder) String() string {
	return fmt.Sprintf("process %d (%s): %s %s", h.PID, h.Command, h.Use, h.Path)
}

// Holders lists what processes hold on the file system with the given device
// number, by process. Processes that this one may not look into, which are
// those of other users unless it runs as root, are left out, and their number
// is returned as hidden. It asks the file system itself nothing.
func Holders(device Device) (holders []Holder, hidden int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, 0, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		found, visible := ofProcess(pid, device)
		holders = append(holders, found...)
		if !visible {
			hidden++
		}
	}
	return holders, hidden, nil
}

// ofProcess lists what one process holds. visible is false if the process may
// not be looked into.
func ofProcess(pid int, device Device) (held []Holder, visible bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	seen := make(map[string]bool)
	add := func(use, path string) {
		if !seen[path] || use != "mapped file" {
			held = append(held, Holder{PID: pid, Command: command(dir), Use: use, Path: path})
		}
		seen[path] = true
	}
	for _, link := range []struct{ name, use string }{
		{"cwd", "working directory"}, {"root", "root directory"}, {"exe", "program"},
	} {
		if path, ok := linkOn(filepath.Join(dir, link.name), device); ok {
			add(link.use, path)
		}
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	for _, fd := range fds {
		if path, ok := linkOn(filepath.Join(dir, "fd", fd.Name()), device); ok {
			add("open file", path)
		}
	}
	for _, path := range mappedOn(filepath.Join(dir, "maps"), device) {
		add("mapped file", path)
	}
	return held, !os.IsPermission(err)
}

// linkOn follows a magic link of /proc and returns its path if it leads to
// the device.
func linkOn(link string, device Device) (string, bool) {
	var st unix.Statx_t
	// Nothing is asked for but the device, which the kernel knows by itself:
	// a request to a daemon that hangs would hang this process too.
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	if err != nil || (Device{Major: st.Dev_major, Minor: st.Dev_minor}) != device {
		return "", false
	}
	path, err := os.Readlink(link)
	return path, err == nil
}

// mappedOn returns the files of the device that /proc/PID/maps lists, once each.
func mappedOn(maps string, device Device) []string {
	f, err := os.Open(maps)
	if err != nil {
		return nil
	}
	defer f.Close() // only read
	var paths []string
	seen := make(map[string]bool)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		path, ok := parseMap(lines.Text(), device)
		if ok && !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	return paths
}

// parseMap reads a line of /proc/PID/maps: address, permissions, offset,
// device in hexadecimal, inode, path.
func parseMap(line string, device Device) (path string, ok bool) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 6 {
		return "", false
	}
	if d, valid := parseDevice(fields[3], 16); !valid || d != device {
		return "", false
	}
	return strings.TrimLeft(fields[5], " "), true
}

func command(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "?"
	}
	return strings.TrimSuffix(string(b), "\n")
}
