package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
)

// row is one kind of work.
type row struct {
	name, unit     string
	higherIsBetter bool
}

func (r row) String() string { return r.name + " " + r.unit }

// group is rows that are done in one go, as each needs what the one before has left.
type group struct {
	rows []row
	run  func(s *subject) error
}

// groups returns the rows that are done unless others are named, in their order. Their definitions are fixed: a figure
// is worth something only beside others of the same definition.
func groups() []group {
	rate := func(name string) row { return row{name, "MB/s", true} } // MB are MiB
	iops := func(name string) row { return row{name, "IOPS", true} }
	seconds := func(name string) row { return row{name, "s", false} }
	return []group{
		{[]row{rate("seq_write"), rate("seq_read_cold"), rate("seq_read_again"), rate("overwrite")}, (*subject).sequential},
		{[]row{rate("write_4k")}, (*subject).smallWrites},
		{[]row{{"append_100B", "k/s", true}}, (*subject).appends},
		{[]row{iops("rand_read_cold"), iops("rand_write"), iops("rand_write_fsync")}, (*subject).random},
		{[]row{seconds("untar"), seconds("tree_read_cold"), seconds("tree_read_again"), seconds("ls_cold"), seconds("ls_again"), seconds("rm")}, (*subject).wholeTree},
		{[]row{seconds("create_10k")}, (*subject).creates},
	}
}

func allGroups() []group { return slices.Concat(groups(), scaleGroups()) }

func allRows() (all []row) {
	for _, g := range allGroups() {
		all = append(all, g.rows...)
	}
	return all
}

func rowNames() []string { return names(allGroups()) }

func names(groups []group) (names []string) {
	for _, g := range groups {
		for _, r := range g.rows {
			names = append(names, r.name)
		}
	}
	return names
}

// groupsWanted returns the groups that have one of the rows named, or the usual ones if none is.
func groupsWanted(names []string) (wanted []group) {
	if len(names) == 0 {
		return groups()
	}
	for _, g := range allGroups() {
		if g.has(names) {
			wanted = append(wanted, g)
		}
	}
	return wanted
}

// has tells whether a group has one of the rows named.
func (g group) has(names []string) bool {
	return slices.ContainsFunc(g.rows, func(r row) bool { return slices.Contains(names, r.name) })
}

// subject is a place, what is done there, and where the figures go.
type subject struct {
	*place
	work   workload
	tree   tree
	record func(rowName string, value float64)
}

// steps runs one after the other until one fails.
func steps(all ...func() error) error {
	for _, step := range all {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// takes is a step that records how long a program takes.
func (s *subject) takes(name string, args ...string) func() error {
	return s.per(name, 0, args...)
}

// per is a step that records how much work a program does in a second. An
// amount of 0 records the time instead.
func (s *subject) per(name string, amount float64, args ...string) func() error {
	return func() error {
		t, err := s.timed(args...)
		if err != nil {
			return err
		}
		if amount > 0 {
			t = amount / t
		}
		s.record(name, t)
		return nil
	}
}

func (s *subject) remove(name string) func() error {
	return func() error { return os.RemoveAll(s.path(name)) }
}

func (s *subject) sequential() error {
	size := float64(s.work.sequentialMiB)
	count := "count=" + strconv.Itoa(s.work.sequentialMiB*8)
	return steps(
		s.per("seq_write", size, "dd", "if=/dev/zero", "of="+s.path("z"), "bs=128k", count, "conv=fsync"),
		s.cold,
		s.per("seq_read_cold", size, "dd", "if="+s.path("z"), "of=/dev/null", "bs=128k"),
		s.per("seq_read_again", size, "dd", "if="+s.path("z"), "of=/dev/null", "bs=128k"),
		s.per("overwrite", size, "dd", "if=/dev/zero", "of="+s.path("z"), "bs=128k", count, "conv=fsync,notrunc"),
		s.remove("z"),
	)
}

func (s *subject) smallWrites() error {
	return steps(
		s.per("write_4k", float64(s.work.smallCalls)/256, "dd", "if=/dev/zero", "of="+s.path("z4"), "bs=4k",
			fmt.Sprintf("count=%d", s.work.smallCalls), "conv=fsync"),
		s.remove("z4"),
	)
}

func (s *subject) appends() error {
	calls := s.work.appends
	return steps(
		func() error {
			t, err := s.worker("append", s.path("ap"), strconv.Itoa(calls))
			if err == nil {
				s.record("append_100B", float64(calls)/1000/t)
			}
			return err
		},
		s.remove("ap"),
	)
}

func (s *subject) random() error {
	return steps(
		s.fioFile,
		s.cold,
		s.fio("rand_read_cold", "randread", s.work.randomTime),
		s.fio("rand_write", "randwrite", s.work.randomTime, "--end_fsync=1"),
		s.fio("rand_write_fsync", "randwrite", s.work.syncTime, "--fsync=1"),
		s.remove("fio.dat"),
	)
}

// readTree is the script that reads all of a tree. The archive goes through
// cat, since tar does not read files for /dev/null.
const readTree = `tar cf - -C "$1" src | cat >/dev/null`

func (s *subject) wholeTree() error {
	script := func(name, text string) func() error {
		return s.takes(name, "sh", "-c", text, "sh", s.dir)
	}
	return steps(
		s.takes("untar", "tar", "xf", s.tree.path, "-C", s.dir),
		s.cold,
		script("tree_read_cold", readTree),
		script("tree_read_again", readTree),
		s.cold,
		script("ls_cold", `ls -lR "$1" >/dev/null`),
		script("ls_again", `ls -lR "$1" >/dev/null`),
		s.takes("rm", "rm", "-rf", s.path("src")),
	)
}

func (s *subject) creates() error {
	return steps(
		func() error {
			t, err := s.worker("create", s.path("c"), strconv.Itoa(s.work.creates))
			if err == nil {
				s.record("create_10k", t)
			}
			return err
		},
		s.remove("c"),
	)
}
