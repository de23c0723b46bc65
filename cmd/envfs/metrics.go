package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsListener is where Prometheus asks how a mount is doing.
type metricsListener struct {
	listener net.Listener
	server   *http.Server
	ended    chan struct{} // closed when serve has ended
}

// listenMetrics listens at an address, or returns nil if it is empty.
func listenMetrics(address string) (*metricsListener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &metricsListener{listener: l, ended: make(chan struct{})}, nil
}

// url is where to find the metrics. The port is the real one, also if the
// address left it open.
func (l *metricsListener) url() string { return "http://" + l.listener.Addr().String() + "/metrics" }

// serve answers in the background, until close is called.
func (l *metricsListener) serve(m *monitor) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(m), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry: registry, EnableOpenMetrics: true, MaxRequestsInFlight: 4,
	}))
	l.server = &http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(l.ended)
		if err := l.server.Serve(l.listener); err != http.ErrServerClosed {
			m.log.Error("metrics are no longer served", "error", err)
		}
	}()
}

// close ends the answers under way as well. It may be called on nil.
func (l *metricsListener) close() {
	if l == nil {
		return
	}
	if l.server == nil { // the mount never came to be
		_ = l.listener.Close() // nothing was written
		return
	}
	_ = l.server.Close() // likewise
	<-l.ended
}
