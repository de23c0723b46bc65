package main

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed targets.txt
var targetsText string

// target is what a cell of a table has to reach.
type target struct {
	table, row, column string // row and column may be "*"
	atLeast            bool   // else at most
	value              float64
}

// targets are all of targets.txt.
type targets []target

// parseTargets reads the text of a file of targets.
func parseTargets(text string) (all targets, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		t, err := parseTarget(fields)
		if err != nil {
			return nil, fmt.Errorf("targets, line %d: %w", number, err)
		}
		all = append(all, t)
	}
	return all, nil
}

func parseTarget(fields []string) (t target, err error) {
	if len(fields) != 5 || fields[3] != ">=" && fields[3] != "<=" {
		return t, fmt.Errorf("want table row column relation value, not %q", fields)
	}
	t = target{table: fields[0], row: fields[1], column: fields[2], atLeast: fields[3] == ">="}
	t.value, err = strconv.ParseFloat(fields[4], 64)
	return t, err
}

// of returns the target of a cell: the first that names it, else the first
// that means it by "*".
func (all targets) of(table, row, column string) (found target, ok bool) {
	for _, t := range all {
		if t.table != table || t.row != row && t.row != "*" || t.column != column && t.column != "*" {
			continue
		}
		if t.row != "*" && t.column != "*" {
			return t, true
		}
		if !ok {
			found, ok = t, true
		}
	}
	return found, ok
}

// missedBy tells whether a value misses the target.
func (t target) missedBy(value float64) bool {
	if t.atLeast {
		return value < t.value
	}
	return value > t.value
}

func (t target) String() string {
	if t.atLeast {
		return fmt.Sprintf("at least %g", t.value)
	}
	return fmt.Sprintf("at most %g", t.value)
}
