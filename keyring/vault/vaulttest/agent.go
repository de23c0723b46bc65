package vaulttest

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
)

// Agent does what a Vault Agent or Proxy with use_auto_auth_token does: it
// listens on a Unix socket, and adds its token to requests that have none.
type Agent struct {
	Address string // for VAULT_ADDR

	token  atomic.Value // string
	sent   atomic.Int64
	server *http.Server
}

// Agent runs one for the length of the test, before a server without TLS.
func (s *Server) Agent(token string) *Agent {
	s.tb.Helper()
	to, err := url.Parse(s.Address)
	if err != nil {
		s.tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // a short path: a socket's has no room for more
	if err != nil {
		s.tb.Fatal(err)
	}
	socket := filepath.Join(dir, "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		s.tb.Fatal(err)
	}
	a := &Agent{Address: "unix://" + socket}
	a.SetToken(token)
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // a client that goes away is no news
	a.server = &http.Server{Handler: &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		if r.In.Header.Get("X-Vault-Token") != "" {
			a.sent.Add(1)
			return
		}
		r.Out.Header.Set("X-Vault-Token", a.token.Load().(string))
	}}}
	go func() { _ = a.server.Serve(l) }()
	s.tb.Cleanup(func() {
		a.Close()
		_ = os.RemoveAll(dir)
	})
	return a
}

// SetToken replaces the token that the agent adds.
func (a *Agent) SetToken(token string) { a.token.Store(token) }

// Sent counts the requests that came with a token of their own.
func (a *Agent) Sent() int64 { return a.sent.Load() }

// Close ends the agent, if it has not ended.
func (a *Agent) Close() { _ = a.server.Close() }
