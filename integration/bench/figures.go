package main

import (
	"encoding/json"
	"os"
	"slices"
)

// figures are what was measured: for each row and column one value a round.
type figures struct {
	order []row // rows in the order of their first value
	all   map[string]map[string][]float64
}

func newFigures() *figures { return &figures{all: map[string]map[string][]float64{}} }

// add records a value.
func (f *figures) add(r row, column string, value float64) {
	name := r.String()
	if f.all[name] == nil {
		f.all[name] = map[string][]float64{}
		f.order = append(f.order, r)
	}
	f.all[name][column] = append(f.all[name][column], value)
}

// median returns the median of a cell; false if nothing was measured.
func (f *figures) median(r row, column string) (float64, bool) {
	values := slices.Sorted(slices.Values(f.all[r.String()][column]))
	n := len(values)
	if n == 0 {
		return 0, false
	}
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

// ahead returns by what factor column a is better than column b; false if
// either is missing or nothing.
func (f *figures) ahead(r row, a, b string) (float64, bool) {
	of, okA := f.median(r, a)
	than, okB := f.median(r, b)
	if !okA || !okB || of <= 0 || than <= 0 {
		return 0, false
	}
	if r.higherIsBetter {
		return of / than, true
	}
	return than / of, true
}

// save writes all figures as JSON.
func (f *figures) save(path string) error {
	medians := map[string]map[string]float64{}
	higher := map[string]bool{}
	for _, r := range f.order {
		higher[r.String()] = r.higherIsBetter
		medians[r.String()] = map[string]float64{}
		for column := range f.all[r.String()] {
			medians[r.String()][column], _ = f.median(r, column)
		}
	}
	text, err := json.MarshalIndent(map[string]any{"median": medians, "higher_is_better": higher, "all": f.all}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
