package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/volume"
)

// verifyReport is what envfs verify says. Programs may read it.
type verifyReport struct {
	Volume string `json:"volume"`
	Quick  bool   `json:"quick"`
	Repair bool   `json:"repair"`
	volume.VerifyCount
	Findings []verifyFinding `json:"findings"`
	Moved    []verifyMove    `json:"moved"` // by --repair
}

// verifyFinding is a finding whose path is absolute.
type verifyFinding struct {
	volume.Finding
	Code int `json:"code"` // what the command would exit with, were this the only one
}

// verifyMove says where something was moved to.
type verifyMove struct {
	Path string `json:"path"` // absolute, as the other one
	To   string `json:"to"`
}

// findingList collects findings, and prints each as it comes.
type findingList struct {
	meter  *progress.Meter
	report verifyReport
	worst  error // of what could not be checked
}

func (l *findingList) add(f volume.Finding) {
	f.Path = filepath.Join(l.report.Volume, f.Path)
	found := verifyFinding{Finding: f, Code: findingCode(f)}
	l.report.Findings = append(l.report.Findings, found)
	if f.Class == volume.ClassUnchecked && (l.worst == nil || severity(f.Err) > severity(l.worst)) {
		l.worst = f.Err
	}
	l.meter.Println("envfs: " + found.String())
}

func (l *findingList) moved(rel, to string) {
	from := filepath.Join(l.report.Volume, rel)
	l.report.Moved = append(l.report.Moved, verifyMove{Path: from, To: to})
	l.meter.Println(fmt.Sprintf("envfs: %s: moved to %s", from, to))
}

// findingCode is the exit code for a finding by itself.
func findingCode(f volume.Finding) int {
	switch f.Class {
	case volume.ClassDamage:
		return exitDamage
	case volume.ClassNotice:
		return exitOK
	}
	if code := exitCode(f.Err); code == exitDenied || code == exitUnreachable {
		return code
	}
	return exitFailure
}

// err sums the findings up: nil if nothing is wrong.
func (l *findingList) err() error {
	r := &l.report
	switch {
	case r.Damage > 0:
		return about(r.Volume, errVerified)
	case r.Unchecked == 0:
		return nil
	case exitCode(l.worst) == exitDamage: // of the volume, not of something in it, as it is for other commands
		return about(r.Volume, errUnchecked)
	}
	return about(r.Volume, classedError{errUnchecked.Error(), l.worst})
}

// String is the finding as a line.
func (f verifyFinding) String() string {
	where := printable(f.Path)
	switch {
	case f.Block != nil && f.Blocks > 1:
		where += fmt.Sprintf(": blocks %d to %d", *f.Block, *f.Block+f.Blocks-1)
	case f.Block != nil:
		where += fmt.Sprintf(": block %d", *f.Block)
	case f.Blocks > 0:
		where += fmt.Sprintf(": %s", number(f.Blocks))
	case f.Attribute != "":
		where += ": attribute " + printable(f.Attribute)
	}
	about := printable(f.Plaintext)
	if f.FileID != (crypto.ID{}) {
		about += fmt.Sprintf(", file ID %v", f.FileID)
	}
	text := fmt.Sprintf("%s: %s: %s (%s)", f.Class, where, f.Reason, about)
	if f.Resealed {
		text += "; now it is sealed"
	}
	return text
}

// printable quotes what would not stay on its line: names are what anybody chose.
func printable(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	return name
}

// String is the report for people: the findings were printed before.
func (r verifyReport) String() string {
	text := "verified " + countFiles(r.Files)
	if r.Quick {
		text = "verified the headers of " + countFiles(r.Files)
	}
	for _, other := range []struct {
		n    int64
		what string
	}{{r.Directories, "directories"}, {r.Links, "symbolic links"}, {r.Others, "other entries"}, {r.Attributes, "attributes"}} {
		if other.n > 0 {
			text += fmt.Sprintf(", %s %s", number(other.n), other.what)
		}
	}
	results := []string{"no damage"}
	if r.Damage > 0 {
		results[0] = "damage: " + number(r.Damage)
	}
	for _, other := range []struct {
		n    int64
		what string
	}{{r.Unchecked, "unchecked"}, {r.Notices, "notices"}, {r.Resealed, "sealed"}, {r.Quarantined, "moved away"}} {
		if other.n > 0 {
			results = append(results, fmt.Sprintf("%s: %s", other.what, number(other.n)))
		}
	}
	text += fmt.Sprintf("; read %s; %s", size(r.Bytes), strings.Join(results, ", "))
	if !r.Complete {
		text += "; not all was looked at"
	}
	return text
}
