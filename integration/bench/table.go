package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Widths of the columns of tables.
const (
	nameWidth  = 22
	valueWidth = 12
)

// printPeers prints medians, how far envfs is ahead of each file system, and
// which targets of a table are missed (marked with !).
func printPeers(w io.Writer, f *figures, columns []string, table string, all targets) {
	missed := &misses{}
	hasEnvfs := slices.Contains(columns, "envfs")
	printHeading(w, columns)
	if hasEnvfs {
		fmt.Fprint(w, "   envfs ahead by")
	}
	fmt.Fprintln(w)
	for _, r := range f.order {
		printMedians(w, f, r, columns)
		for _, column := range columns {
			factor, ok := f.ahead(r, "envfs", column)
			if ok && hasEnvfs && column != "envfs" {
				fmt.Fprintf(w, "   %s %.2fx%s", column, factor, missed.mark(all, table, r.name, column, factor))
			}
		}
		fmt.Fprintln(w)
	}
	missed.print(w, hasEnvfs)
}

func printHeading(w io.Writer, columns []string) {
	fmt.Fprintf(w, "%-*s", nameWidth, "")
	for _, column := range columns {
		fmt.Fprintf(w, "%*s", valueWidth, column)
	}
}

func printMedians(w io.Writer, f *figures, r row, columns []string) {
	fmt.Fprintf(w, "%-*s", nameWidth, r)
	for _, column := range columns {
		text := "-"
		if value, ok := f.median(r, column); ok {
			text = fmt.Sprintf("%.2f", value)
		}
		fmt.Fprintf(w, "%*s", valueWidth, text)
	}
}

// misses are the targets that were not reached.
type misses struct{ lines []string }

// mark returns what is printed after a value: "!" if it misses its target,
// which is noted.
func (m *misses) mark(all targets, table, row, column string, value float64) string {
	goal, ok := all.of(table, row, column)
	if !ok || !goal.missedBy(value) {
		return " "
	}
	m.lines = append(m.lines, fmt.Sprintf("%s: %s, %s: %.2f, wanted %v", table, row, column, value, goal))
	return "!"
}

// print lists them, if there was anything to reach.
func (m *misses) print(w io.Writer, measured bool) {
	switch {
	case len(m.lines) > 0:
		fmt.Fprintf(w, "\nmissed (!):\n  %s\n", strings.Join(m.lines, "\n  "))
	case measured:
		fmt.Fprintln(w, "\nno target is missed")
	}
}
