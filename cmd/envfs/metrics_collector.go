package main

import (
	"runtime/debug"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/envfs/envfs/keyring"
)

// collector turns the status of a mount into metrics, at each scrape.
type collector struct {
	monitor *monitor
	metrics map[string]*prometheus.Desc // by name without "envfs_"
}

// metric is the description of one.
type metric struct {
	name, help string
	labels     []string
}

// metrics are all of ours. Names end in their unit; counters end in _total.
func metrics() []metric {
	operation, class := "operation", "class"
	return []metric{
		{"mount_info", "The mount that this process serves; always 1.",
			[]string{"version", "mountpoint", "directory", "keyring"}},
		{"operations_total", "Requests of applications, by kind.", []string{operation}},
		{"read_bytes_total", "Plaintext read.", nil},
		{"written_bytes_total", "Plaintext written.", nil},
		{"faults_total", "Operations that failed for a reason that the log tells.", nil},
		{"open_handles", "Open files and directories.", nil},
		{"inodes", "Files and directories that the kernel knows.", nil},
		{"unsealed_files", "Files that were written and closed and wait to be sealed.", nil},
		{"key_pool_keys", "Wrapped keys ready for new files.", nil},
		{"key_pool_target_keys", "Wrapped keys that are to be held ready now.", nil},
		{"key_cache_keys", "Keys of files in memory.", nil},
		{"key_cache_hits_total", "Keys that were there when a file was opened.", nil},
		{"key_cache_misses_total", "Keys that the key service was asked for.", nil},
		{"key_cache_evictions_total", "Keys wiped for want of room or past their time.", nil},
		{"key_cache_refusals_total", "Keys wiped because the key service refused them.", nil},
		{"key_service_requests_total", "Requests to the key service.", []string{operation}},
		{"key_service_request_keys_total", "Keys in these requests.", []string{operation}},
		{"key_service_errors_total", "Requests, or single keys in them, that failed.", []string{operation, class}},
		{"key_service_request_duration_seconds", "How long requests to the key service took.", []string{operation}},
		{"key_service_up", "Whether Vault answered the last request.", nil},
		{"key_service_logged_in", "Whether the last login to Vault succeeded.", nil},
		{"key_service_token_expiry_timestamp_seconds", "When the token for Vault expires; missing if never.", nil},
		{"audit_records_total", "Records in the audit log.", nil},
		{"audit_lost_records_total", "Records that the audit log did not take.", nil},
	}
}

func newCollector(m *monitor) *collector {
	c := &collector{monitor: m, metrics: map[string]*prometheus.Desc{}}
	for _, d := range metrics() {
		c.metrics[d.name] = prometheus.NewDesc("envfs_"+d.name, d.help, d.labels, nil)
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.metrics {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	e := emitter{c.metrics, out}
	s := c.monitor.status()
	e.gauge("mount_info", 1, newVersionReport(debug.ReadBuildInfo()).Version,
		utf8Label(c.monitor.request.Mountpoint), utf8Label(c.monitor.request.Dir), s.Keyring.Type)
	e.files(s.Files)
	e.keys(s)
	for _, o := range c.monitor.meter.Stats() {
		if o.Requests > 0 { // a mount does not make all kinds
			e.requests(o)
		}
	}
	if v := s.Keyring.Vault; v != nil {
		e.vault(v)
	}
	if s.Audit != nil {
		e.counter("audit_records_total", s.Audit.Written)
		e.counter("audit_lost_records_total", s.Audit.Lost)
	}
}

// utf8Label makes a label of a path, which is any bytes.
func utf8Label(path string) string { return strings.ToValidUTF8(path, "\ufffd") }

// emitter sends the metrics of one scrape.
type emitter struct {
	metrics map[string]*prometheus.Desc
	out     chan<- prometheus.Metric
}

func (e emitter) gauge(name string, value float64, labels ...string) {
	m, err := prometheus.NewConstMetric(e.metrics[name], prometheus.GaugeValue, value, labels...)
	e.send(name, m, err)
}

func (e emitter) counter(name string, value uint64, labels ...string) {
	m, err := prometheus.NewConstMetric(e.metrics[name], prometheus.CounterValue, float64(value), labels...)
	e.send(name, m, err)
}

// send lets the scrape fail if a metric is wrong, rather than the mount.
func (e emitter) send(name string, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(e.metrics[name], err)
	}
	e.out <- m
}

func (e emitter) files(f fileStatus) {
	for operation, n := range map[string]uint64{
		"read": f.Reads, "write": f.Writes, "open": f.Opens, "create": f.Creates, "remove": f.Removes, "sync": f.Syncs,
	} {
		e.counter("operations_total", n, operation)
	}
	e.counter("read_bytes_total", f.BytesRead)
	e.counter("written_bytes_total", f.BytesWritten)
	e.counter("faults_total", f.Faults)
	e.gauge("open_handles", float64(f.OpenHandles))
	e.gauge("inodes", float64(f.Inodes))
	e.gauge("unsealed_files", float64(f.Unsealed))
}

func (e emitter) keys(s mountStatus) {
	if s.Pool != nil {
		e.gauge("key_pool_keys", float64(s.Pool.Ready))
		e.gauge("key_pool_target_keys", float64(s.Pool.Target))
	}
	e.gauge("key_cache_keys", float64(s.Cache.Keys))
	e.counter("key_cache_hits_total", s.Cache.Hits)
	e.counter("key_cache_misses_total", s.Cache.Misses)
	e.counter("key_cache_evictions_total", s.Cache.Evicted)
	e.counter("key_cache_refusals_total", s.Cache.Refused)
}

func (e emitter) requests(o keyring.OpStats) {
	e.counter("key_service_requests_total", o.Requests, o.Op)
	e.counter("key_service_request_keys_total", o.Items, o.Op)
	for class, n := range errorKinds(o.Errors) {
		e.counter("key_service_errors_total", n, o.Op, class)
	}
	buckets := map[float64]uint64{}
	for i, b := range o.Latency.Buckets {
		if i%4 == 0 { // each twice the one before, which is enough over a network
			buckets[float64(b.Bound)/1e9] = b.Count // Seconds would add 0.1 ns here and there
		}
	}
	const name = "key_service_request_duration_seconds"
	m, err := prometheus.NewConstHistogram(e.metrics[name], o.Requests, o.Latency.Sum.Seconds(), buckets, o.Op)
	e.send(name, m, err)
}

func (e emitter) vault(v *vaultStatus) {
	e.gauge("key_service_up", boolValue(v.UnreachableSince == nil))
	e.gauge("key_service_logged_in", boolValue(v.LoggedIn))
	if v.TokenExpiry != nil {
		e.gauge("key_service_token_expiry_timestamp_seconds", float64(v.TokenExpiry.UnixMilli())/1000)
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
