package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/volume"
)

// lines are what a report says, one fact a line, with a name before it.
type lines struct{ names, values []string }

func (l *lines) add(name, format string, args ...any) {
	l.names = append(l.names, name)
	l.values = append(l.values, fmt.Sprintf(format, args...))
}

// write prints the values in a column.
func (l *lines) write(w io.Writer) error {
	width := 0
	for _, name := range l.names {
		width = max(width, len(name))
	}
	for i, name := range l.names {
		if _, err := fmt.Fprintf(w, "%-*s  %s\n", width, name, l.values[i]); err != nil {
			return err
		}
	}
	return nil
}

// write prints the report for people.
func (r infoReport) write(w io.Writer) error {
	var l lines
	if r.Volume != nil {
		l.addVolume(r.Volume, r.Mounts)
	}
	if r.Entry != nil {
		l.addEntry(r.Entry)
	}
	if r.File != nil {
		l.addFile(r.File)
	}
	return l.write(w)
}

func (l *lines) addVolume(v *volume.VolumeInfo, mounts []infoMount) {
	l.add("volume", "%s", v.Path)
	l.add("volume ID", "%v", v.VolumeID)
	l.add("format", "%d", v.Format)
	l.add("names", "%s", v.Names)
	l.add("keyring", "%s", describeKeyring(v.Keyring))
	l.add("volume key", "wrapped by %s", kekVersion(v.KEKVersion))
	l.add("header slots", "2 of %d bytes", v.SlotSize)
	for _, m := range mounts {
		how := "read-write"
		if m.ReadOnly {
			how = "read-only"
		}
		l.add("mounted at", "%s (%s)", m.Mountpoint, how)
	}
	l.add("files", "%s", number(v.Tree.Files))
	for _, c := range v.KEKVersions {
		l.add("  by their keys", "%s, wrapped by %s", number(c.Files), kekVersion(c.Version))
	}
	l.add("directories", "%s", number(v.Tree.Directories))
	l.add("other entries", "%s", number(v.Tree.Others))
	if v.Tree.Foreign > 0 {
		l.add("foreign entries", "%s: not made by envfs, hidden from mounts", number(v.Tree.Foreign))
	}
	if v.Tree.Unreadable > 0 {
		l.add("unreadable", "%s: not counted", number(v.Tree.Unreadable))
	}
	l.add("ciphertext", "%s", size(v.Tree.Ciphertext))
	l.add("plaintext", "%s", size(v.Tree.Plaintext))
}

func describeKeyring(k volume.KeyringInfo) string {
	if k.Type == volume.KeyringVault {
		return fmt.Sprintf("Vault Transit, key %q at %q", k.Key, k.Mount)
	}
	return "passphrase"
}

func kekVersion(version int) string {
	if version == 0 {
		return "a key of unknown version"
	}
	return fmt.Sprintf("key version %d", version)
}

func (l *lines) addEntry(e *infoEntry) {
	plain := e.PlaintextPath
	if plain == "" {
		plain = "(" + e.PlaintextNote + ")"
	}
	l.add("type", "%s", e.Type)
	l.add("plaintext path", "%s", plain)
	l.add("ciphertext path", "%s", e.CiphertextPath)
}

func (l *lines) addFile(f *volume.FileInfo) {
	l.add("ciphertext size", "%s", size(f.CiphertextSize))
	l.add("plaintext size", "%s", size(f.PlaintextSize))
	if h := f.Header; h != nil {
		l.add("file ID", "%v", h.FileID)
		l.add("volume ID", "%v", h.VolumeID)
		l.add("key of the file", "wrapped by %s", kekVersion(h.KEKVersion))
		l.add("cipher suite", "%d, blocks of %s bytes", h.Suite, number(int64(h.BlockSize)))
		l.add("state", "%s", describeState(h))
	} else if f.CiphertextSize == 0 {
		l.add("state", "empty, without a header")
	}
	for i, s := range f.Slots {
		l.add(fmt.Sprintf("header slot %d", i), "%s", describeSlot(s))
	}
	for _, problem := range f.Problems {
		l.add("problem", "%s", problem)
	}
}

func describeState(h *volume.HeaderInfo) string {
	var sparse string
	if h.Sparse {
		sparse = ", may have holes"
	}
	if h.Sealed {
		return fmt.Sprintf("sealed at %s bytes%s", number(int64(*h.SealedSize)), sparse)
	}
	return "unsealed: open for writing, or not closed before a crash" + sparse
}

func describeSlot(s volume.SlotInfo) string {
	switch {
	case s.Problem == crypto.ErrNoSlot.Error():
		return "not used yet"
	case !s.Valid:
		return "not valid: " + s.Problem
	case s.Current:
		return fmt.Sprintf("current, sequence %d, %s", s.Sequence, kekVersion(s.KEKVersion))
	}
	return fmt.Sprintf("valid, sequence %d, %s", s.Sequence, kekVersion(s.KEKVersion))
}

// number writes thousands apart.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return sign + strings.Join(append([]string{digits}, parts...), ",")
}

// size writes a number of bytes as people read it, and exactly.
func size(n int64) string {
	if n < 1024 {
		return number(n) + " bytes"
	}
	value, unit := float64(n)/1024, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB", "PiB", "EiB"} {
		if value < 1023.95 { // would be shown as 1024.0
			break
		}
		value, unit = value/1024, next
	}
	return fmt.Sprintf("%.1f %s (%s bytes)", value, unit, number(n))
}
