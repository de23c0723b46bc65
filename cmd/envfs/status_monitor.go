package main

import (
	"context"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/audit"
	"github.com/envfs/envfs/internal/control"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/volume"
)

// methodStatus is the method of the control socket that returns a mountStatus.
const methodStatus = "status"

// monitor knows how a mount is doing, in the process that serves it, and tells
// envfs status and Prometheus. Its fields do not change once the mount is there.
type monitor struct {
	request *mountRequest
	cfg     *volume.Config
	keyring keyring.Keyring
	meter   *keyring.Meter
	volume  *volume.Volume
	audit   *audit.Log
	log     *slog.Logger
	started time.Time

	server  *fs.Server
	metrics *metricsListener // nil: nobody scrapes
}

// start begins to answer, once the mount is there. Without a control socket the
// mount works all the same. stop removes the socket.
func (m *monitor) start(where mounts.Mount) (stop func()) {
	socket, err := m.listen(where.Device)
	if err != nil {
		m.log.Warn("envfs status will not work", "error", err)
	}
	if m.metrics != nil {
		m.metrics.serve(m)
		m.log.Info("serving metrics", "url", m.metrics.url())
	}
	return func() {
		if socket == nil {
			return
		}
		if err := socket.Close(); err != nil {
			m.log.Warn("control socket", "error", err)
		}
	}
}

func (m *monitor) listen(device mounts.Device) (*control.Server, error) {
	path, err := controlPath(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"), device)
	if err != nil {
		return nil, err
	}
	methods := m.freezeMethods()
	methods[methodStatus] = func(context.Context, control.Call) (any, error) { return m.status(), nil }
	return control.Listen(path, methods, m.log)
}

// controlPath is where the process that serves a mount of a user listens. The
// name is made of the number that the kernel gave the mount: it leads to the same
// process wherever the mount is shown, and no other mount has it.
func controlPath(uid int, runtimeDir string, d mounts.Device) (string, error) {
	dir, err := control.Directory(uid, runtimeDir)
	name := strconv.Itoa(int(d.Major)) + "-" + strconv.Itoa(int(d.Minor)) + ".sock"
	return filepath.Join(dir, name), err
}

func (m *monitor) status() mountStatus {
	v := m.volume.Stats()
	s := mountStatus{
		PID: os.Getpid(), Version: newVersionReport(debug.ReadBuildInfo()).Version,
		Started: m.started, UptimeSecs: time.Since(m.started).Seconds(), ReadOnly: m.request.Options.ReadOnly,
		Keyring:     m.keyringStatus(),
		Cache:       newCacheStatus(v.Cache),
		KeyRequests: newKeyRequests(m.meter.Stats()),
		Files:       newFileStatus(m.server.Stats(), v),
		Audit:       m.auditStatus(),
	}
	if f := m.server.Frozen(); f != nil {
		s.Frozen = &freezeStatus{Since: f.Since, LimitSecs: f.Limit.Seconds(), Held: m.server.Held()}
	}
	if v.Pool != nil {
		s.Pool = &poolStatus{Ready: v.Pool.Ready, Target: v.Pool.Target}
	}
	if m.metrics != nil {
		s.Metrics = m.metrics.url()
	}
	return s
}

func (m *monitor) keyringStatus() keyringStatus {
	s := keyringStatus{Type: m.cfg.Keyring.Type}
	kr, ok := m.keyring.(*vault.Keyring)
	if !ok {
		return s
	}
	state := kr.State()
	s.Vault = &vaultStatus{
		Address: withoutPassword(state.Address), Namespace: state.Namespace,
		Mount: m.cfg.Keyring.Vault.Mount, Key: m.cfg.Keyring.Vault.Key,
		Login: state.Method, LoggedIn: state.LoggedIn, TokenRenewable: state.Renewable,
		TokenExpiry: timeOrNil(state.Expiry), UnreachableSince: timeOrNil(state.UnreachableSince),
		LastError: className(state.LastError), LastErrorTime: timeOrNil(state.LastErrorTime),
	}
	if !state.Expiry.IsZero() {
		left := max(0, time.Until(state.Expiry).Seconds())
		s.Vault.TokenSecondsLeft = &left
	}
	return s
}

// withoutPassword hides what nobody should put into an address.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Redacted()
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func newCacheStatus(c keyring.CacheStats) cacheStatus {
	s := cacheStatus{Keys: c.Keys, Hits: c.Hits, Misses: c.Misses, Evicted: c.Evicted, Refused: c.Dropped}
	if all := c.Hits + c.Misses; all > 0 {
		ratio := float64(c.Hits) / float64(all)
		s.HitRatio = &ratio
	}
	return s
}

func newKeyRequests(stats []keyring.OpStats) []keyRequests {
	all := []keyRequests{} // never null in JSON
	for _, s := range stats {
		if s.Requests == 0 {
			continue
		}
		r := keyRequests{Operation: s.Op, Requests: s.Requests, Keys: s.Items, Errors: errorKinds(s.Errors)}
		maps.DeleteFunc(r.Errors, func(_ string, n uint64) bool { return n == 0 })
		if l := s.Latency; l.Window > 0 {
			r.Latency = &latencyStatus{
				P50: l.P50.Seconds(), P90: l.P90.Seconds(), P99: l.P99.Seconds(), Requests: l.Window,
			}
		}
		all = append(all, r)
	}
	return all
}

func newFileStatus(f fs.Stats, v volume.Stats) fileStatus {
	return fileStatus{
		Reads: f.Reads, BytesRead: f.BytesRead, Writes: f.Writes, BytesWritten: f.BytesWritten,
		Opens: f.Opens, Creates: f.Creates, Removes: f.Removes, Syncs: f.Syncs, Faults: f.Faults,
		OpenHandles: f.OpenHandles, Inodes: f.Inodes, Unsealed: v.Unsealed,
	}
}

func (m *monitor) auditStatus() *auditStatus {
	if m.audit == nil {
		return nil
	}
	n := m.audit.Stats()
	a := m.request.Audit
	s := &auditStatus{File: a.File, Syslog: a.Syslog, Required: a.Required, Written: n.Written, Lost: n.Lost}
	if err := m.audit.Ready(); err != nil {
		s.Problem = err.Error()
	}
	return s
}
