package main

import (
	"slices"
	"strings"
	"testing"
)

// TestTargets checks that targets.txt is about what is measured, and leaves no row out.
func TestTargets(t *testing.T) {
	all, err := parseTargets(targetsText)
	if err != nil {
		t.Fatal(err)
	}
	vaultNames := []string{"*"}
	for _, r := range vaultRows() {
		vaultNames = append(vaultNames, r.name)
	}
	rows := map[string][]string{
		"tmpfs": append(rowNames(), "*"), "disk": append(rowNames(), "*"), "vault": vaultNames, "vault-requests": vaultNames,
	}
	columns := map[string][]string{
		"tmpfs": fileSystemNames(), "disk": fileSystemNames(), "vault": {"10ms", "50ms"}, "vault-requests": {"*"},
	}
	for _, g := range all {
		if !slices.Contains(rows[g.table], g.row) || !slices.Contains(columns[g.table], g.column) || g.value < 0 {
			t.Errorf("nothing that is measured: %+v", g)
		}
		if g.atLeast != (g.table == "tmpfs" || g.table == "disk") {
			t.Errorf("the wrong relation: %+v", g)
		}
	}
	for _, name := range names(groups()) {
		for _, cell := range [][2]string{{"tmpfs", "gocryptfs"}, {"tmpfs", "securefs"}, {"disk", "gocryptfs"}} {
			if _, ok := all.of(cell[0], name, cell[1]); !ok {
				t.Errorf("no target for %s on %s beside %s", name, cell[0], cell[1])
			}
		}
	}
	for _, r := range vaultRows() {
		if _, ok := all.of("vault-requests", r.name, "10ms"); !ok {
			t.Errorf("no target for the requests of %s", r.name)
		}
	}
}

func TestTargetOf(t *testing.T) {
	all, err := parseTargets("# comment\n\na * x >= 1 # all\na r x >= 3\na r * <= 5\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		table, row, column string
		want               float64 // 0: none
	}{
		{"a", "r", "x", 3}, {"a", "other", "x", 1}, {"a", "r", "y", 5}, {"a", "other", "y", 0}, {"b", "r", "x", 0},
	} {
		got, ok := all.of(test.table, test.row, test.column)
		if ok != (test.want != 0) || got.value != test.want {
			t.Errorf("%+v: %+v, %v", test, got, ok)
		}
	}
	for _, test := range []struct {
		goal   target
		value  float64
		missed bool
	}{
		{target{atLeast: true, value: 2}, 1.99, true}, {target{atLeast: true, value: 2}, 2, false}, {target{atLeast: true, value: 2}, 3, false},
		{target{value: 2}, 2.01, true}, {target{value: 2}, 2, false}, {target{value: 2}, 1, false}, {target{}, 0, false}, {target{}, 1, true},
	} {
		if test.goal.missedBy(test.value) != test.missed {
			t.Errorf("%v is missed by %v: %v", test.goal, test.value, !test.missed)
		}
	}
}

func TestTargetsRefused(t *testing.T) {
	for _, text := range []string{"a r x >=", "a r x >= 1 2", "a r x > 1", "a r x >= much"} {
		if all, err := parseTargets("a r x <= 1\n" + text); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v, %v", text, all, err)
		}
	}
}
