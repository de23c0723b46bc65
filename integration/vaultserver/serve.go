package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/vault"
)

// enableMounts mounts every backend compiled in under its own name.
func enableMounts(core *vault.Core, token string) error {
	ctx := namespace.RootContext(nil)
	enable := func(path, kind string) error {
		_, err := core.HandleRequest(ctx, &logical.Request{
			Operation:   logical.UpdateOperation,
			Path:        path,
			ClientToken: token,
			Data:        map[string]interface{}{"type": kind},
		})
		if err != nil {
			return fmt.Errorf("enable %s: %w", kind, err)
		}
		return nil
	}
	for name := range logicalBackends() {
		if err := enable("sys/mounts/"+name, name); err != nil {
			return err
		}
	}
	for name := range credentialBackends() {
		if err := enable("sys/auth/"+name, name); err != nil {
			return err
		}
	}
	return nil
}

// listen opens the listener and returns the serving function and the address
// that clients use.
func listen(core *vault.Core, o options) (func() error, string, error) {
	network, addr := "tcp", o.listen
	if path, ok := strings.CutPrefix(o.listen, "unix://"); ok {
		network, addr = "unix", path
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, "", err
	}
	srv := &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
			Core:           core,
			ListenerConfig: &configutil.Listener{}, // nil panics
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // refused handshakes are part of tests
	}
	scheme := "http"
	if o.tlsCert != "" {
		conf, err := tlsConfig(o)
		if err != nil {
			return nil, "", err
		}
		srv.TLSConfig = conf
		scheme = "https"
	}
	address := scheme + "://" + l.Addr().String()
	if network == "unix" {
		address = "unix://" + addr
	}
	return func() error {
		if o.tlsCert != "" {
			return srv.ServeTLS(l, "", "")
		}
		return srv.Serve(l)
	}, address, nil
}

func tlsConfig(o options) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.tlsClientCA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(o.tlsClientCA)
	if err != nil {
		return nil, err
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + o.tlsClientCA)
	}
	// The cert login method checks the chain against its own roles.
	conf.ClientAuth = tls.RequestClientCert
	return conf, nil
}
