// Command bench runs the same work on several mounted file systems in one go
// and prints them side by side, and measures what the distance to Vault costs.
//
//	bench [flags] NAME...        native envfs envfs-wt gocryptfs securefs encfs cryfs
//	bench vault [flags]          the local keyring beside Vault at several round trips
//
// Every figure is the median of rounds in which the file systems take turns,
// so that drift of the machine hits all alike. Ratios mean something, absolute
// figures do not. Before a row called cold the file system is mounted anew and
// the page cache dropped, for which the program must be root. Each round of a
// file system begins with a new, empty volume.
//
// The ciphertext lies below -base, on the storage to be tested: a tmpfs shows
// the program, a disk shows the disk. What is to be reached stands in
// targets.txt; rows that miss it are marked, which changes no exit code.
//
// Environment: ENVFS names the program to measure (default bin/envfs, else the
// one in PATH); GOCRYPTFS, SECUREFS, ENCFS and CRYFS likewise (default: PATH).
// VAULT_ variables are not passed on.
//
// It lies beside the integration tests, drives programs from outside as they
// do, and imports of envfs only what starts a Vault server. Whatever ends it
// but SIGKILL, it leaves nothing mounted, running or lying about.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// errUsage is a command line that cannot be meant; it has been explained.
var errUsage = errors.New("usage")

func main() {
	if isWorker(os.Args[1:]) {
		os.Exit(workerMain(os.Args[1:], os.Stderr))
	}
	followParent()
	os.Exit(benchMain(os.Args[1:], os.Stdout, os.Stderr))
}

// benchMain runs until the end or a signal and returns the exit code: 0 for
// figures, 1 for an error, 2 for wrong usage.
func benchMain(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, args, stdout, stderr)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "vault" {
		o, err := parseVault(args[1:], stderr)
		if err != nil {
			return err
		}
		return runVault(ctx, o, stdout, stderr)
	}
	o, err := parsePeers(args, stderr)
	if err != nil {
		return err
	}
	return runPeers(ctx, o, stdout, stderr)
}
