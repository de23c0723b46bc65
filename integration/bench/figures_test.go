package main

import (
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	r := row{"work", "s", false}
	for _, test := range []struct {
		values []float64
		want   float64
		ok     bool
	}{
		{nil, 0, false}, {[]float64{7}, 7, true}, {[]float64{3, 1}, 2, true}, {[]float64{9, 1, 2}, 2, true}, {[]float64{4, 1, 100, 2}, 3, true},
	} {
		f := newFigures()
		for _, v := range test.values {
			f.add(r, "x", v)
		}
		if got, ok := f.median(r, "x"); got != test.want || ok != test.ok {
			t.Errorf("median of %v: %v, %v", test.values, got, ok)
		}
	}
}

// sample is figures of three file systems and three rows.
func sample() *figures {
	f := newFigures()
	speed, seconds := row{"speed", "MB/s", true}, row{"untar", "s", false}
	for _, v := range []float64{300, 100, 200} {
		f.add(speed, "envfs", v)
		f.add(speed, "slow", v/4)
	}
	f.add(speed, "native", 1000)
	f.add(seconds, "envfs", 2)
	f.add(seconds, "slow", 3)
	f.add(row{"rm", "s", false}, "slow", 3)
	return f
}

func TestPrintPeers(t *testing.T) {
	goals, err := parseTargets("t speed slow >= 4\nt untar slow >= 1.6\nt * native >= 0.5\nother * * >= 99")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	printPeers(&out, sample(), []string{"native", "envfs", "slow"}, "t", goals)
	want := `
                            native       envfs        slow   envfs ahead by
speed MB/s                 1000.00      200.00       50.00   native 0.20x!   slow 4.00x 
untar s                          -        2.00        3.00   slow 1.50x!
rm s                             -           -        3.00

missed (!):
  t: speed, native: 0.20, wanted at least 0.5
  t: untar, slow: 1.50, wanted at least 1.6
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

func TestPrintWithoutMisses(t *testing.T) {
	var out strings.Builder
	printPeers(&out, sample(), []string{"envfs", "slow"}, "t", nil)
	if !strings.HasSuffix(out.String(), "\nno target is missed\n") {
		t.Errorf("%s", &out)
	}
	out.Reset()
	printPeers(&out, sample(), []string{"slow"}, "t", nil)
	if strings.Contains(out.String(), "ahead") || strings.Contains(out.String(), "target") {
		t.Errorf("says something about envfs, which was not measured:\n%s", &out)
	}
}

func TestParseFio(t *testing.T) {
	const report = `{"jobs":[{"read":{"iops":12.5},"write":{"iops":7}}]}`
	for _, test := range []struct {
		out, kind string
		want      float64
	}{
		{report, "randread", 12.5}, {report, "randwrite", 7}, {"fio: a note\n" + report + "\nmore", "randread", 12.5},
	} {
		if got, err := parseFio(test.out, test.kind); got != test.want || err != nil {
			t.Errorf("%q, %s: %v, %v", test.out, test.kind, got, err)
		}
	}
	for _, out := range []string{"", "no result", "{", `{"jobs":[]}`} {
		if got, err := parseFio(out, "randread"); err == nil {
			t.Errorf("%q: %v", out, got)
		}
	}
}
