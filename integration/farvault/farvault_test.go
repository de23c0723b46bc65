package farvault

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestVault sends requests over a distance: they arrive as they were sent,
// take the round trip, and are counted.
func TestVault(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Vault-Token")+" "+string(body))
	}))
	defer server.Close()
	const rtt = 20 * time.Millisecond
	far, err := New(server.URL, rtt)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	const requests = 3
	for range requests {
		start := time.Now()
		req, err := http.NewRequest(http.MethodPut, far.Address+"/v1/transit/decrypt/docs", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", "secret")
		reply, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(reply.Body)
		_ = reply.Body.Close()
		if err != nil || reply.StatusCode != http.StatusTeapot || string(got) != "PUT /v1/transit/decrypt/docs secret body" {
			t.Errorf("%s %q, %v", reply.Status, got, err)
		}
		if took := time.Since(start); took < rtt {
			t.Errorf("a request took %v, less than the round trip", took)
		}
	}
	if got, err := far.Settle(t.Context()); err != nil || got != requests {
		t.Errorf("%d requests counted, %v, want %d", got, err, requests)
	}
	if err := far.Close(); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(far.Address); err == nil {
		t.Error("a closed one answers")
	}
}

// TestSettleWaits has a request under way that the count must wait for.
func TestSettleWaits(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	far, err := New(server.URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := far.Close(); err != nil {
			t.Error(err)
		}
	}()
	answered := make(chan error, 1)
	go func() {
		reply, err := http.Get(far.Address)
		if err == nil {
			err = reply.Body.Close()
		}
		answered <- err
	}()
	for deadline := time.Now().Add(patience); far.pending.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request has not begun")
		}
	}
	start := time.Now()
	const busy = 2 * quiet
	time.AfterFunc(busy, func() { close(release) })
	if got, err := far.Settle(t.Context()); err != nil || got != 1 {
		t.Errorf("%d, %v", got, err)
	}
	if took := time.Since(start); took < busy {
		t.Errorf("counted after %v, while a request was under way", took)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
