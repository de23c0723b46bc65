package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/envfs/envfs/integration/farvault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// localColumn is the column that the others are compared with.
const localColumn = "local"

// vaultBench is a benchmark of Vault's distance under way.
type vaultBench struct {
	*vaultOptions
	folders  *folders
	server   *vaulttest.Standalone
	tree     tree
	times    *figures
	requests *figures  // for each 1,000 files, or in all
	log      io.Writer // progress
}

// runVault measures the local keyring beside Vault at several round trips.
func runVault(ctx context.Context, o *vaultOptions, stdout, stderr io.Writer) (err error) {
	goals, err := parseTargets(targetsText)
	if err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	f, err := newFolders(o.base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.remove()) }()
	fmt.Fprintln(stderr, "starting Vault (building it takes minutes, once)")
	server, err := vaulttest.RunStandalone()
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Write("transit/keys/bench", nil); err != nil {
		return err
	}
	b := vaultBench{vaultOptions: o, folders: f, server: server, times: newFigures(), requests: newFigures(), log: stderr}
	if err := b.measure(ctx); err != nil {
		return err
	}
	describeRun(stdout, &o.common, storageOf(f.data))
	b.print(stdout, goals)
	if o.json != "" {
		return b.times.save(o.json)
	}
	return nil
}

// measure does all rounds. They interleave the distances.
func (b *vaultBench) measure(ctx context.Context) (err error) {
	b.tree, err = makeTree(&runner{ctx: ctx}, filepath.Join(b.folders.scratch, "tree.tar"), b.work.tree)
	if err != nil {
		return err
	}
	for round := range b.rounds {
		fmt.Fprintf(b.log, "round %d of %d: %s\n", round+1, b.rounds, localColumn)
		if err := b.measureOne(ctx, localColumn, fileSystemNamed("envfs"), nil); err != nil {
			return err
		}
		for _, rtt := range b.rtts {
			fmt.Fprintf(b.log, "round %d of %d: Vault at %v\n", round+1, b.rounds, rtt)
			if err := b.measureFar(ctx, rtt); err != nil {
				return fmt.Errorf("vault at %v: %w", rtt, err)
			}
		}
	}
	return nil
}

// measureFar is measureOne with Vault at a distance.
func (b *vaultBench) measureFar(ctx context.Context, rtt time.Duration) (err error) {
	far, err := farvault.New(b.server.Address, rtt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	fs := fileSystem{
		name: "envfs-vault", program: "envfs",
		init:  []string{"{t}", "init", "--keyring", "vault", "--transit-key", "bench", "{c}"},
		mount: []string{"{t}", "mount", "--log-file", "{l}", "--transit-key", "bench", "{c}", "{m}"},
		env:   []string{"VAULT_ADDR=" + far.Address, "VAULT_TOKEN=" + b.server.RootToken},
	}
	return b.measureOne(ctx, columnOf(rtt), fs, far)
}

// columnOf names the column of a round trip.
func columnOf(rtt time.Duration) string { return rtt.String() }

// measureOne does all rows on a new volume; far is nil for the local keyring.
func (b *vaultBench) measureOne(ctx context.Context, column string, fs fileSystem, far *farvault.Vault) (err error) {
	place, err := newPlace(ctx, b.folders, fs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.close()) }()
	place.keepCaches = b.tiny
	for _, r := range vaultRows() {
		if err := b.measureRow(place, column, r, far); err != nil {
			return err
		}
	}
	return nil
}

// vaultRow is one kind of work on the tree.
type vaultRow struct {
	row
	isPerFile bool // it makes or reads the files: their keys are needed
	warm      bool // goes on with the mount as the row before has left it
	script    string
}

// vaultRows returns all rows. Each but the first begins cold, so that no key
// is there from the row before; scripts have the mountpoint in $1 and the
// archive in $2.
func vaultRows() []vaultRow {
	seconds := func(name string) row { return row{name, "s", false} }
	return []vaultRow{
		{row: seconds("untar"), isPerFile: true, warm: true, script: `tar xf "$2" -C "$1"`},
		{row: seconds("tree_read_cold"), isPerFile: true, script: readTree},
		{row: seconds("du"), script: `du -s "$1" >/dev/null`},
		{row: seconds("ls"), script: `ls -lR "$1" >/dev/null`},
		{row: seconds("mv"), script: `mkdir "$1/moved" && mv "$1"/src/* "$1/moved/"`},
		{row: seconds("rm"), script: `rm -rf "$1/src" "$1/moved"`},
	}
}

// measureRow does a row and records its time and its requests.
func (b *vaultBench) measureRow(p *place, column string, r vaultRow, far *farvault.Vault) error {
	if !r.warm {
		if err := p.cold(); err != nil {
			return err
		}
	}
	count := func() (int64, error) { return 0, nil }
	if far != nil {
		count = func() (int64, error) { return far.Settle(p.ctx) }
	}
	before, err := count()
	if err != nil {
		return err
	}
	took, err := p.shell(r.script, p.dir, b.tree.path)
	if err != nil {
		return err
	}
	after, err := count()
	if err != nil {
		return err
	}
	b.times.add(r.row, column, took)
	if far != nil {
		b.requests.add(r.row, column, r.rate(after-before, b.tree.files))
	}
	return nil
}

// rate is the number of requests as it is printed.
func (r vaultRow) rate(requests int64, files int) float64 {
	if !r.isPerFile {
		return float64(requests)
	}
	return float64(requests) * 1000 / float64(files)
}

// print prints times, what multiple of the local keyring's they are, and
// requests, and marks misses with !.
func (b *vaultBench) print(w io.Writer, goals targets) {
	columns := []string{localColumn}
	for _, rtt := range b.rtts {
		columns = append(columns, columnOf(rtt))
	}
	missed := &misses{}
	fmt.Fprintf(w, "tree of %d files; Vault at a round trip of …, times those of the local keyring\n\n", b.tree.files)
	printHeading(w, columns)
	fmt.Fprintln(w)
	for _, r := range b.times.order {
		printMedians(w, b.times, r, columns)
		for _, column := range columns[1:] {
			factor, ok := b.times.ahead(r, localColumn, column)
			if ok {
				fmt.Fprintf(w, "   %s %.2fx%s", column, factor, missed.mark(goals, "vault", r.name, column, factor))
			}
		}
		fmt.Fprintln(w)
	}
	b.printRequests(w, columns[1:], goals, missed)
	missed.print(w, true)
}

func (b *vaultBench) printRequests(w io.Writer, columns []string, goals targets, missed *misses) {
	fmt.Fprint(w, "\nrequests to Vault\n\n")
	printHeading(w, columns)
	fmt.Fprintln(w)
	for _, r := range vaultRows() {
		fmt.Fprintf(w, "%-*s", nameWidth, r.name)
		for _, column := range columns {
			value, _ := b.requests.median(r.row, column)
			fmt.Fprintf(w, "%*.1f%s", valueWidth-1, value, missed.mark(goals, "vault-requests", r.name, column, value))
		}
		if r.isPerFile {
			fmt.Fprint(w, "   for each 1,000 files")
		}
		fmt.Fprintln(w)
	}
}
