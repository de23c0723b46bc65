package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// runPeers measures file systems side by side.
func runPeers(ctx context.Context, o *peersOptions, stdout, stderr io.Writer) (err error) {
	goals, err := parseTargets(targetsText)
	if err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	if o.install {
		install(&runner{ctx: ctx}, o.names, stderr)
	}
	systems := available(o.names, stderr)
	todo := possible(o.rows, stderr)
	if len(systems) == 0 || len(todo) == 0 {
		return errors.New("nothing is left to measure")
	}
	f, err := newFolders(o.base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.remove()) }()
	p := peers{peersOptions: o, folders: f, groups: todo, figures: newFigures(), log: stderr}
	failed, err := p.measure(ctx, systems)
	if err != nil {
		return err
	}
	var columns []string
	for _, fs := range systems {
		columns = append(columns, fs.name)
	}
	storage := storageOf(f.data)
	describeRun(stdout, &o.common, storage)
	printPeers(stdout, p.figures, columns, storage, goals)
	if o.json != "" {
		failed = errors.Join(failed, p.figures.save(o.json))
	}
	return failed
}

// peers is a benchmark under way.
type peers struct {
	*peersOptions
	folders *folders
	groups  []group
	tree    tree
	figures *figures
	log     io.Writer // progress
}

// measure does all rounds. They interleave the file systems. One that fails
// spoils only its own column; that is the first of the errors.
func (p *peers) measure(ctx context.Context, systems []fileSystem) (failed, err error) {
	if slices.ContainsFunc(p.groups, func(g group) bool { return g.rows[0].name == "untar" }) {
		p.tree, err = makeTree(&runner{ctx: ctx}, filepath.Join(p.folders.scratch, "tree.tar"), p.work.tree)
		if err != nil {
			return nil, err
		}
	}
	broken := map[string]bool{}
	for round := range p.rounds {
		for _, fs := range systems {
			if broken[fs.name] {
				continue
			}
			fmt.Fprintf(p.log, "round %d of %d: %s\n", round+1, p.rounds, fs.name)
			err := p.measureOne(ctx, fs)
			if ctx.Err() != nil {
				return nil, errors.Join(ctx.Err(), err)
			}
			if err != nil {
				broken[fs.name] = true
				fmt.Fprintf(p.log, "%s: failed, and left out from now on\n", fs.name)
				failed = errors.Join(failed, fmt.Errorf("%s: %w", fs.name, err))
			}
		}
	}
	return failed, nil
}

// measureOne does one round of one file system.
func (p *peers) measureOne(ctx context.Context, fs fileSystem) (err error) {
	place, err := newPlace(ctx, p.folders, fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.close()) }()
	place.keepCaches = p.tiny
	rows := map[string]row{}
	for _, r := range allRows() {
		rows[r.name] = r
	}
	s := &subject{place: place, work: p.work, tree: p.tree}
	s.record = func(name string, value float64) { p.figures.add(rows[name], fs.name, value) }
	for _, g := range p.groups {
		if err := g.run(s); err != nil {
			return err
		}
	}
	return nil
}

// possible returns the groups of the rows wanted, without those whose program
// is missing.
func possible(names []string, stderr io.Writer) (todo []group) {
	_, noFio := exec.LookPath("fio")
	for _, g := range groupsWanted(names) {
		if strings.HasPrefix(g.rows[0].name, "rand_") && noFio != nil {
			fmt.Fprintln(stderr, "rows rand_: skipped:", noFio)
			continue
		}
		todo = append(todo, g)
	}
	return todo
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("must be run by root, to mount and to drop the page cache")
	}
	return nil
}

// storageOf names the table of targets for a folder: tmpfs or disk.
func storageOf(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.TMPFS_MAGIC {
		return "tmpfs"
	}
	return "disk"
}

// describeRun prints what the table is of.
func describeRun(w io.Writer, o *common, storage string) {
	fmt.Fprintf(w, "ciphertext in %s (%s), rounds: %d, of which medians are shown", o.base, storage, o.rounds)
	if o.tiny {
		fmt.Fprint(w, "; TINY: these figures mean nothing")
	}
	fmt.Fprint(w, "\n\n")
}
