// Package mounts knows the mounts of this machine: which of them are envfs,
// who keeps one busy, and how to take one away.
//
// It sits below the commands of envfs and reads /proc only; it asks the
// mounted file systems nothing, so that it also works on one whose daemon
// hangs or is gone.
package mounts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Type is the file system type of an envfs mount in /proc/self/mountinfo.
const Type = "fuse.envfs"

// Device is the number that the kernel gave a mounted file system.
type Device struct{ Major, Minor uint32 }

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	ID, Parent int
	Device     Device
	Root       string // directory of the file system that is shown; "/" but for bind mounts
	Point      string // where it is shown, absolute
	Options    string // of this mount, e.g. "rw,nosuid,nodev,relatime"
	Type       string // e.g. "ext4", "fuse.envfs"
	Source     string // of an envfs mount: the ciphertext directory
	UID        uint32 // of a FUSE mount: the user who mounted it
}

// IsEnvfs tells whether the mount is one of envfs.
func (m Mount) IsEnvfs() bool { return m.Type == Type }

// IsSameAs tells whether another mount shows the same file system. The number
// of the device alone does not: once a file system is unmounted, the kernel
// gives its number to the next one.
func (m Mount) IsSameAs(other Mount) bool {
	return m.Device == other.Device && m.Type == other.Type && m.Source == other.Source
}

// ReadOnly tells whether the mount refuses writes.
func (m Mount) ReadOnly() bool {
	for option := range strings.SplitSeq(m.Options, ",") {
		if option == "ro" {
			return true
		}
	}
	return false
}

// Table is the mounts of a process, in the order in which they were made.
type Table []Mount

// Read returns the mounts that this process sees.
func Read() (Table, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the table of mounts: %w", err)
	}
	defer f.Close() // only read
	return Parse(f)
}

// Parse reads lines of the form that proc_pid_mountinfo(5) describes.
func Parse(r io.Reader) (Table, error) {
	var t Table
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // overlay mounts list all their layers in one line
	for lines.Scan() {
		m, err := parseLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("table of mounts: %w: %q", err, lines.Text())
		}
		t = append(t, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the table of mounts: %w", err)
	}
	return t, nil
}

var (
	errShort  = errors.New("too few fields")
	errNumber = errors.New("bad number")
)

func parseLine(line string) (Mount, error) {
	before, after, ok := strings.Cut(line, " - ")
	head, tail := strings.Split(before, " "), strings.Split(after, " ") // not Fields: the kernel escapes no other white space
	if !ok || len(head) < 6 || len(tail) < 2 {
		return Mount{}, errShort
	}
	id, err1 := strconv.Atoi(head[0])
	parent, err2 := strconv.Atoi(head[1])
	device, ok := parseDevice(head[2], 10)
	if err1 != nil || err2 != nil || !ok {
		return Mount{}, errNumber
	}
	m := Mount{
		ID: id, Parent: parent, Device: device,
		Root: unescape(head[3]), Point: unescape(head[4]), Options: head[5],
		Type: unescape(tail[0]), Source: unescape(tail[1]),
	}
	if len(tail) > 2 {
		m.UID = userOf(tail[2])
	}
	return m, nil
}

// userOf finds the user in the options of a FUSE file system. It is 0 for
// others.
func userOf(options string) uint32 {
	for option := range strings.SplitSeq(options, ",") {
		if value, ok := strings.CutPrefix(option, "user_id="); ok {
			uid, err := strconv.ParseUint(value, 10, 32)
			if err == nil {
				return uint32(uid)
			}
		}
	}
	return 0
}

// parseDevice reads "major:minor" in the given base.
func parseDevice(s string, base int) (Device, bool) {
	major, minor, _ := strings.Cut(s, ":")
	a, err1 := strconv.ParseUint(major, base, 32)
	b, err2 := strconv.ParseUint(minor, base, 32)
	return Device{Major: uint32(a), Minor: uint32(b)}, err1 == nil && err2 == nil
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// At returns the mount that is visible at exactly the given directory.
func (t Table) At(point string) (Mount, bool) {
	for i := len(t) - 1; i >= 0; i-- { // a later mount covers an earlier one
		if t[i].Point == point {
			return t[i], true
		}
	}
	return Mount{}, false
}

// Containing returns the mount on which the absolute, resolved path lies.
func (t Table) Containing(path string) (Mount, bool) {
	for {
		if m, ok := t.At(path); ok {
			return m, true
		}
		if path == "/" || path == "." {
			return Mount{}, false
		}
		path = filepath.Dir(path)
	}
}

// Below returns the mounts that stand on directories of m.
func (t Table) Below(m Mount) Table {
	var below Table
	for _, other := range t {
		if other.Parent == m.ID && other.ID != m.ID {
			below = append(below, other)
		}
	}
	return below
}

// OfSource returns the envfs mounts of a ciphertext directory.
func (t Table) OfSource(dir string) Table {
	var found Table
	for _, m := range t {
		if m.IsEnvfs() && m.Source == dir {
			found = append(found, m)
		}
	}
	return found
}

// Resolve makes a mountpoint as a user writes it absolute and free of
// symbolic links. It works for a mount whose daemon is gone, which cannot be
// looked at itself: then only the directories above it are resolved.
func Resolve(point string) (string, error) {
	abs, err := filepath.Abs(point)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(abs)
	if !IsDead(err) {
		return resolved, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	return filepath.Join(parent, filepath.Base(abs)), err
}

// IsDead tells whether an error of a path means that it lies on a FUSE mount
// without a daemon.
func IsDead(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}
