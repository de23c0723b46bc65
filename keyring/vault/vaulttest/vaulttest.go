// Package vaulttest runs a real Vault server for tests: the program of
// integration/vaultserver, a module of its own that is built once and kept in
// the user's cache folder. A test that changes HOME does so after Start.
//
// A test that needs Vault and cannot have it fails. With
// ENVFS_TEST_VAULT=skip in the environment it is skipped instead, and says so.
package vaulttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// Options of a server. The zero value listens on a free port without TLS.
type Options struct {
	TLS  bool // serve TLS with a certificate of its own; see Server.CACert
	Unix bool // listen on a Unix socket
}

// Server is a running Vault: unsealed, with Transit at transit/ and the login
// methods approle, userpass, cert and kubernetes under their own names. Its
// storage lasts over Stop and Restart and goes with the test.
type Server struct {
	Address   string      // for VAULT_ADDR
	RootToken string      // may do anything
	UnsealKey string      // one is enough
	CACert    string      // with Options.TLS: PEM file for VAULT_CACERT
	Root      *api.Client // with the root token

	tb     testing.TB
	binary string
	args   []string // but for -listen
	listen string   // the same for each start

	mu      sync.Mutex
	process *process // nil while stopped; guarded by mu
}

// process is one run of the program.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
}

// Start runs a server for the length of the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return StartWith(tb, Options{})
}

// StartWith is Start with options.
func StartWith(tb testing.TB, o Options) *Server {
	tb.Helper()
	data := tb.TempDir()
	s := &Server{tb: tb, binary: Binary(tb), listen: "127.0.0.1:0", args: []string{"-data", data}}
	if o.Unix {
		s.listen = "unix://" + filepath.Join(data, "vault.sock")
	}
	if o.TLS {
		pair := newCertificate(tb, data)
		s.CACert = pair.cert
		s.args = append(s.args, "-tls-cert", pair.cert, "-tls-key", pair.key, "-tls-client-ca", pair.cert)
	}
	tb.Cleanup(s.Kill)
	s.Restart()
	s.Root = s.Client(s.RootToken)
	return s
}

// Client returns a client of the server with a token. It ignores the
// environment's namespace and does not retry.
func (s *Server) Client(token string) *api.Client {
	s.tb.Helper()
	conf := api.DefaultConfig()
	if conf.Error != nil {
		s.tb.Fatalf("vault: %v", conf.Error)
	}
	conf.Address = s.Address
	conf.MaxRetries = 0
	if s.CACert != "" {
		if err := conf.ConfigureTLS(&api.TLSConfig{CACert: s.CACert}); err != nil {
			s.tb.Fatalf("vault: %v", err)
		}
	}
	client, err := api.NewClient(conf)
	if err != nil {
		s.tb.Fatalf("vault: %v", err)
	}
	client.ClearNamespace()
	client.SetToken(token)
	return client
}

// Restart starts a stopped server, on the same address as before, unsealed.
func (s *Server) Restart() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.tb.Fatal("vault: is running")
	}
	if path, ok := socketPath(s.listen); ok {
		_ = os.Remove(path) // what a killed server left
	}
	p, ready, err := run(s.binary, append([]string{"-listen", s.listen}, s.args...))
	if err != nil {
		s.tb.Fatalf("vault: %v", err)
	}
	s.process = p
	s.Address, s.RootToken, s.UnsealKey = ready.Address, ready.RootToken, ready.UnsealKey
	if u, err := url.Parse(ready.Address); err == nil && u.Scheme != "unix" {
		s.listen = u.Host
	}
}

func socketPath(listen string) (string, bool) {
	u, err := url.Parse(listen)
	if err != nil || u.Scheme != "unix" {
		return "", false
	}
	return u.Path, true
}

// readyLine is what the program prints once it serves.
type readyLine struct {
	Address   string `json:"address"`
	RootToken string `json:"root_token"`
	UnsealKey string `json:"unseal_key"`
}

func run(binary string, args []string) (*process, readyLine, error) {
	var ready readyLine
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, ready, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, ready, err
	}
	if err := cmd.Start(); err != nil {
		return nil, ready, err
	}
	p := &process{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		p.end(syscall.SIGKILL)
		return nil, ready, fmt.Errorf("server did not become ready: %w", err)
	}
	return p, ready, nil
}

func (p *process) end(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be paused
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = p.stdin.Close()
}

// Stop ends the server in order; Restart brings it back.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once; Restart brings it back.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		s.process.end(signal)
		s.process = nil
	}
}

// Pause freezes the server: connections are taken but not answered.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal syscall.Signal) {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.cmd.Process.Signal(signal); err != nil {
		s.tb.Fatalf("vault: %v", err)
	}
}
