package delayproxy

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"testing"
	"time"
)

// echo runs a server that sends back what it gets, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T, target string, rtt time.Duration) *Proxy {
	t.Helper()
	p, err := Listen("127.0.0.1:0", target, rtt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a message and returns the answer and how long it took.
func ask(c net.Conn, message string) (string, time.Duration, error) {
	start := time.Now()
	if _, err := io.WriteString(c, message); err != nil {
		return "", 0, err
	}
	answer := make([]byte, len(message))
	n, err := io.ReadFull(c, answer)
	return string(answer[:n]), time.Since(start), err
}

func TestRoundTrip(t *testing.T) {
	p := start(t, echo(t), 60*time.Millisecond)
	c := dial(t, p)
	for _, rtt := range []time.Duration{60 * time.Millisecond, 0, 20 * time.Millisecond} {
		p.SetRTT(rtt)
		got, took, err := ask(c, "hello")
		if err != nil || got != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if took < rtt {
			t.Errorf("a round trip of %v took %v", rtt, took)
		}
	}
}

// TestEndOfOneDirection sends much, ends its direction, and still gets everything back.
func TestEndOfOneDirection(t *testing.T) {
	p := start(t, echo(t), 2*time.Millisecond)
	c := dial(t, p)
	want := make([]byte, 5<<20+17)
	_, _ = rand.Read(want) // never fails
	go func() {
		_, _ = c.Write(want)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes of %d came back, %v", len(got), len(want), err)
	}
}

func TestOutage(t *testing.T) {
	p := start(t, echo(t), time.Millisecond)
	open := dial(t, p)
	if _, _, err := ask(open, "before"); err != nil {
		t.Fatal(err)
	}
	p.Cut()
	p.Cut() // changes nothing
	if got, _, err := ask(open, "in the outage"); err == nil {
		t.Errorf("an open connection answers in an outage: %q", got)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		if got, _, err := ask(c, "in the outage"); err == nil {
			t.Errorf("a new connection answers in an outage: %q", got)
		}
		_ = c.Close()
	}
	p.Restore()
	if got, _, err := ask(dial(t, p), "after"); err != nil || got != "after" {
		t.Errorf("after the outage: %q, %v", got, err)
	}
	if !p.Toggle() {
		t.Error("the first toggle does not begin an outage")
	}
	if p.Toggle() {
		t.Error("the second toggle does not end the outage")
	}
	if got, _, err := ask(dial(t, p), "again"); err != nil || got != "again" {
		t.Errorf("after the second outage: %q, %v", got, err)
	}
}

// TestServerGone puts a proxy before nothing: connections end, the proxy goes on.
func TestServerGone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, address, 0)
	for range 3 {
		if got, _, err := ask(dial(t, p), "hello"); err == nil {
			t.Errorf("nobody answers %q", got)
		}
	}
}

// TestClose ends the proxy under a connection in use.
func TestClose(t *testing.T) {
	p := start(t, echo(t), 0)
	c := dial(t, p)
	if _, _, err := ask(c, "before"); err != nil {
		t.Fatal(err)
	}
	p.SetRTT(time.Hour) // Close does not wait for what is on its way
	if _, err := io.WriteString(c, "never comes"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
		t.Errorf("after the end of the proxy: %q, %v, want a reset connection", got, err)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		_ = c.Close()
		t.Error("a closed proxy takes connections")
	}
}

func TestListenRefuses(t *testing.T) {
	for _, test := range []struct {
		address, target string
		rtt             time.Duration
	}{
		{"127.0.0.1:0", "127.0.0.1:1", -1},
		{"127.0.0.1:0", "nowhere", 0},
		{"nowhere", "127.0.0.1:1", 0},
	} {
		if p, err := Listen(test.address, test.target, test.rtt); err == nil {
			t.Errorf("%+v is taken", test)
			_ = p.Close()
		}
	}
}
