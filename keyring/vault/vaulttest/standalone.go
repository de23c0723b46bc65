package vaulttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"syscall"
)

// Standalone is a server for a program that is no test, such as a benchmark.
// It is like Server, with its storage in memory, and ends with the program at
// the latest.
type Standalone struct {
	Address   string // for VAULT_ADDR
	RootToken string // may do anything

	process *process
}

// RunStandalone starts a server, which is built if need be; see Binary.
func RunStandalone() (*Standalone, error) {
	binary, err := build()
	if err != nil {
		return nil, fmt.Errorf("the Vault server for tests cannot be built: %w", err)
	}
	p, ready, err := run(binary, []string{"-listen", "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	return &Standalone{Address: ready.Address, RootToken: ready.RootToken, process: p}, nil
}

// Write writes data at a path of the API, such as "transit/keys/docs", as root.
func (s *Standalone) Write(path string, data map[string]any) (err error) {
	body, err := json.Marshal(data)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, s.Address+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = reply.Body.Close() }() // only read
	if reply.StatusCode >= 300 {
		text, _ := io.ReadAll(reply.Body)
		return fmt.Errorf("vault: write %s: %s: %s", path, reply.Status, text)
	}
	return nil
}

// Close ends the server.
func (s *Standalone) Close() { s.process.end(syscall.SIGTERM) }
