package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// common are the options of both benchmarks.
type common struct {
	base   string // folder for ciphertext
	rounds int
	json   string // file for all figures, or ""
	tiny   bool
	work   workload
}

func (c *common) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&c.base, "base", "/dev/shm/envfs-bench", "`folder` for ciphertext, on the storage to be tested")
	flags.IntVar(&c.rounds, "rounds", 3, "how often all is done")
	flags.StringVar(&c.json, "json", "", "write all figures to `file`")
	flags.BoolVar(&c.tiny, "tiny", false, "do very little work and drop no cache, to see whether all works: the figures mean nothing")
}

// peersOptions are those of the benchmark beside other file systems.
type peersOptions struct {
	common
	names   []string // file systems, in the order of columns
	rows    []string // names of rows wanted; empty: all
	install bool
}

func parsePeers(args []string, stderr io.Writer) (*peersOptions, error) {
	o := &peersOptions{}
	flags := newFlags("bench", "[flags] NAME...\n  NAME: "+strings.Join(fileSystemNames(), " ")+"\n  see also: bench vault -h", stderr)
	o.addFlags(flags)
	size := flags.Int("size", 512, "`MiB` of the sequential rows")
	rows := flags.String("rows", "", "only these rows, and those that are done along with them: `a,b` of "+strings.Join(rowNames(), ","))
	flags.BoolVar(&o.install, "install", false, "install what is missing from Debian's packages, as root")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	o.names, o.rows = flags.Args(), splitList(*rows)
	o.work = fullWorkload(*size)
	if o.tiny {
		o.work = tinyWorkload()
	}
	switch {
	case len(o.names) == 0:
		return nil, refuse(flags, "no file system is named")
	case *size < 1 || o.rounds < 1:
		return nil, refuse(flags, "-size and -rounds must be at least 1")
	}
	if unknown := firstUnknown(o.names, fileSystemNames()); unknown != "" {
		return nil, refuse(flags, "%q is none of the file systems", unknown)
	}
	if unknown := firstUnknown(o.rows, rowNames()); unknown != "" {
		return nil, refuse(flags, "%q is none of the rows", unknown)
	}
	return o, nil
}

// vaultOptions are those of the benchmark of Vault's distance.
type vaultOptions struct {
	common
	rtts []time.Duration // round trips to Vault, in the order of columns
}

func parseVault(args []string, stderr io.Writer) (*vaultOptions, error) {
	o := &vaultOptions{}
	flags := newFlags("bench vault", "[flags]", stderr)
	o.addFlags(flags)
	rtts := flags.String("rtt", "0,10ms,50ms", "round `trips` to Vault")
	if err := parse(flags, args); err != nil {
		return nil, err
	}
	o.work = fullWorkload(1)
	if o.tiny {
		o.work = tinyWorkload()
	}
	for _, text := range splitList(*rtts) {
		rtt, err := time.ParseDuration(text)
		if err != nil || rtt < 0 || slices.Contains(o.rtts, rtt) {
			return nil, refuse(flags, "%q is no round trip, or there twice", text)
		}
		o.rtts = append(o.rtts, rtt)
	}
	if flags.NArg() > 0 || o.rounds < 1 || len(o.rtts) == 0 {
		return nil, refuse(flags, "there are no operands, -rounds must be at least 1, and -rtt not empty")
	}
	return o, nil
}

func newFlags(name, usage string, stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: %s %s\n", name, usage)
		flags.PrintDefaults()
	}
	return flags
}

// parse is flags.Parse with its errors as wrong usage, but for the call for help.
func parse(flags *flag.FlagSet, args []string) error {
	err := flags.Parse(args)
	if err != nil && err != flag.ErrHelp {
		return fmt.Errorf("%w: %w", errUsage, err) // Parse has printed it
	}
	return err
}

// refuse explains what is wrong with the command line.
func refuse(flags *flag.FlagSet, format string, args ...any) error {
	fmt.Fprintf(flags.Output(), "%s: %s\n", flags.Name(), fmt.Sprintf(format, args...))
	flags.Usage()
	return errUsage
}

func splitList(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func firstUnknown(names, known []string) string {
	for _, name := range names {
		if !slices.Contains(known, name) {
			return name
		}
	}
	return ""
}
