// Package delayproxy makes a TCP server on this machine look far away, or
// gone. A Proxy listens on one address and passes what it gets on to another,
// each direction held back by half a round trip. Order and pace are kept: ten
// messages sent together arrive together, later. Connections are set up
// without delay.
//
// An outage cuts what is connected and closes new connections at once, until
// it ends. Tests and benchmarks call Cut and Restore; the program of cmd does
// so on SIGUSR1.
//
// It belongs to the tests and benchmarks of envfs, imports none of its
// packages, and knows nothing about what it passes on.
package delayproxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// dialTimeout bounds the wait for the server behind the proxy.
const dialTimeout = 10 * time.Second

// Proxy is a running proxy. It is safe for concurrent use.
type Proxy struct {
	target   string
	listener net.Listener
	oneWay   atomic.Int64 // delay of a direction, as a time.Duration
	running  sync.WaitGroup

	mu     sync.Mutex
	down   bool               // refuses connections; guarded by mu
	closed bool               // for good; guarded by mu
	conns  map[*link]struct{} // what is connected; guarded by mu
}

// link is a client's connection and the one that serves it.
type link struct {
	client, server net.Conn
	once           sync.Once
	gone           chan struct{} // closed by abort
}

// Listen starts a proxy on a TCP address such as "127.0.0.1:0" for the server
// at another. A round trip takes rtt longer than it does without the proxy.
func Listen(address, target string, rtt time.Duration) (*Proxy, error) {
	if rtt < 0 {
		return nil, fmt.Errorf("a round trip cannot take %v", rtt)
	}
	if _, _, err := net.SplitHostPort(target); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &Proxy{target: target, listener: l, conns: map[*link]struct{}{}}
	p.SetRTT(rtt)
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns the host:port that the proxy listens on.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// SetRTT changes the round trip for what arrives from now on.
func (p *Proxy) SetRTT(rtt time.Duration) { p.oneWay.Store(int64(rtt / 2)) }

// Cut begins an outage: it resets what is connected, and drops what is on its
// way. During an outage it does nothing.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.abortAll()
}

// Restore ends an outage. Connections can be made when it returns.
func (p *Proxy) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// Toggle begins an outage or ends it, and tells whether there is one now.
func (p *Proxy) Toggle() (down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = !p.down
	if p.down {
		p.abortAll()
	}
	return p.down
}

// Close ends the proxy and everything connected. It returns when nothing of it
// runs any more.
func (p *Proxy) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed, p.down = true, true
	err := p.listener.Close()
	p.abortAll()
	p.mu.Unlock()
	p.running.Wait()
	return err
}

// abortAll resets all connections. The caller holds mu.
func (p *Proxy) abortAll() {
	for l := range p.conns {
		l.abort()
	}
	clear(p.conns)
}

// abort resets both connections, as a machine does that lost its state.
func (l *link) abort() {
	l.once.Do(func() { close(l.gone) })
	for _, c := range []net.Conn{l.client, l.server} {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // at worst it is closed in order
		}
		_ = c.Close() // nothing of it is needed
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptors left, for instance
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve connects a client through and returns when both directions have ended.
func (p *Proxy) serve(client net.Conn) {
	if p.isDown() {
		_ = client.Close() // that is the outage
		return
	}
	server, err := net.DialTimeout("tcp", p.target, dialTimeout)
	if err != nil {
		_ = client.Close() // tells the client as much as can be told
		return
	}
	l := &link{client: client, server: server, gone: make(chan struct{})}
	if !p.add(l) {
		l.abort()
		return
	}
	defer p.remove(l)
	var directions sync.WaitGroup
	for _, d := range []direction{{src: client, dst: server}, {src: server, dst: client}} {
		d.delay, d.abort, d.gone = p.delay, l.abort, l.gone
		directions.Go(d.pump)
	}
	directions.Wait()
}

func (p *Proxy) delay() time.Duration { return time.Duration(p.oneWay.Load()) }

func (p *Proxy) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// add takes a connection in, unless an outage has begun meanwhile.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.down {
		p.conns[l] = struct{}{}
	}
	return !p.down
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, l)
	_ = l.client.Close() // both directions have ended
	_ = l.server.Close()
}
