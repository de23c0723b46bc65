package main

import (
	"fmt"
	"io"
	"strings"
)

// write prints the report for people: a block for each area, the findings in
// columns, and below each what to do about it.
func (r *doctorReport) write(w io.Writer, colour bool) error {
	width := 0
	for _, f := range r.Findings {
		width = max(width, len(f.Name))
	}
	var text strings.Builder
	area := ""
	for _, f := range r.Findings {
		if f.Area != area {
			if area != "" {
				text.WriteString("\n")
			}
			area = f.Area
			fmt.Fprintln(&text, area)
		}
		fmt.Fprintf(&text, "  %s  %-*s  %s\n", f.Status.column(colour), width, f.Name, f.Detail)
		if f.Hint != "" {
			fmt.Fprintf(&text, "  %-*s  %-*s  hint: %s\n", statusWidth, "", width, "", f.Hint)
		}
	}
	fmt.Fprintf(&text, "\n%d ok, %s, %s\n", r.OK, counted(r.Warnings, "warning"), counted(r.Problems, "problem"))
	_, err := io.WriteString(w, text.String())
	return err
}

const statusWidth = len(statusWarning)

// column is the word of a status, filled up to the width of all.
func (s status) column(colour bool) string {
	word := fmt.Sprintf("%-*s", statusWidth, string(s))
	if !colour {
		return word
	}
	number := map[status]int{statusOK: 32, statusWarning: 33, statusProblem: 31}[s]
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", number, word)
}

func counted(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}
