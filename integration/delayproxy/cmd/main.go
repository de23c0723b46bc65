// Command cmd runs a delay proxy: a far or failing server, on this machine.
//
//	go run ./integration/delayproxy/cmd LISTEN TARGET RTT
//
// LISTEN and TARGET are host:port, RTT is a duration such as 10ms. SIGUSR1
// begins an outage and ends it again. It ends on SIGTERM and SIGINT.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/envfs/envfs/integration/delayproxy"
)

var errUsage = errors.New("usage: delayproxy LISTEN TARGET RTT (such as 127.0.0.1:8300 127.0.0.1:8200 10ms)")

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM, os.Interrupt)
	err := run(os.Args[1:], signals, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "delayproxy:", err)
	}
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	if err != nil {
		os.Exit(1)
	}
}

// run serves until a signal other than SIGUSR1 comes.
func run(args []string, signals <-chan os.Signal, out io.Writer) error {
	if len(args) != 3 {
		return errUsage
	}
	rtt, err := time.ParseDuration(args[2])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	p, err := delayproxy.Listen(args[0], args[1], rtt)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s -> %s, round trip %v more\n", p.Addr(), args[1], rtt)
	for s := range signals {
		if s != syscall.SIGUSR1 {
			break
		}
		if p.Toggle() {
			fmt.Fprintln(out, "outage")
		} else {
			fmt.Fprintln(out, "back")
		}
	}
	return p.Close()
}
