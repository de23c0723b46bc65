// Package farvault puts a Vault server at a distance and counts what it is
// asked, for tests and benchmarks.
package farvault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/integration/delayproxy"
)

// Vault is a Vault server seen over a distance: a proxy that delays or cuts,
// then one that counts requests, then the server.
type Vault struct {
	Address string            // for VAULT_ADDR
	Line    *delayproxy.Proxy // the distance, and outages
	server  *http.Server
	served  chan error // what became of server

	requests atomic.Int64 // begun so far
	pending  atomic.Int64 // begun and not answered
}

// New puts the proxies before the server at an address.
func New(address string, rtt time.Duration) (*Vault, error) {
	target, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	v := &Vault{served: make(chan error, 1)}
	if v.Line, err = delayproxy.Listen("127.0.0.1:0", l.Addr().String(), rtt); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	v.Address = "http://" + v.Line.Addr()
	v.server = &http.Server{Handler: v.counting(target), ReadHeaderTimeout: time.Minute}
	go func() { v.served <- v.server.Serve(l) }()
	return v, nil
}

// counting passes requests on to the server and counts them.
func (v *Vault) counting(target *url.URL) http.Handler {
	// As many connections are kept as are needed, so that this proxy costs little.
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	forward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // outages are meant
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.requests.Add(1)
		v.pending.Add(1)
		defer v.pending.Add(-1)
		forward.ServeHTTP(w, r)
	})
}

// patience bounds the wait of Settle.
const patience = time.Minute

// quiet is for how long no request comes before all that was going to come counts as having come.
const quiet = 300 * time.Millisecond

// Settle waits until no request is under way and none comes any more, and
// returns how many there have been. Whoever asks all the time is not waited for
// longer than patience.
func (v *Vault) Settle(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	count, since := v.requests.Load(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("requests to Vault do not end: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
		now := v.requests.Load()
		if now != count || v.pending.Load() > 0 {
			count, since = now, time.Now()
		}
		if time.Since(since) > quiet {
			return count, nil
		}
	}
}

// Close ends both proxies.
func (v *Vault) Close() error {
	err := errors.Join(v.Line.Close(), v.server.Close())
	if served := <-v.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
