// Command vaultserver is a real Vault server for tests: one process, one
// unseal key, the Transit engine at transit/ and the login methods that envfs
// supports. It is a module of its own, so that none of Vault's many
// dependencies, nor its licence, reaches envfs.
//
// Once it serves, it prints one line of JSON on standard output:
//
//	{"address":"http://127.0.0.1:43555","root_token":"hvs.…","unseal_key":"…"}
//
// It ends on SIGTERM, on SIGINT, or when its standard input closes, so that it
// never outlives the test that started it. Storage is in memory; with -data it
// is a folder, in which a later start finds the same keys and unseals itself.
// Never use it for anything but tests: that folder holds the unseal key.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/vault"
)

type options struct {
	listen      string
	data        string
	tlsCert     string
	tlsKey      string
	tlsClientCA string
	verbose     bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "host:port, or unix:///path of a socket")
	flag.StringVar(&o.data, "data", "", "folder that keeps the storage over restarts (default: in memory)")
	flag.StringVar(&o.tlsCert, "tls-cert", "", "PEM certificate: serve TLS")
	flag.StringVar(&o.tlsKey, "tls-key", "", "PEM key of -tls-cert")
	flag.StringVar(&o.tlsClientCA, "tls-client-ca", "", "PEM file of the CA that client certificates are asked for")
	flag.BoolVar(&o.verbose, "v", false, "log to standard error")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vaultserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, o options, ready io.Writer) error {
	log := hclog.NewNullLogger()
	if o.verbose {
		log = hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	}
	core, err := newCore(o.data, log)
	if err != nil {
		return err
	}
	keys, err := initAndUnseal(core, o.data)
	if err != nil {
		return err
	}
	server, address, err := listen(core, o)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server() }()
	line := struct {
		Address string `json:"address"`
		initKeys
	}{address, keys}
	if err := json.NewEncoder(ready).Encode(line); err != nil {
		return err
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return shutdown(core)
	}
}

func shutdown(core *vault.Core) error {
	if err := core.Shutdown(); err != nil && !core.Sealed() {
		return err
	}
	return nil
}
