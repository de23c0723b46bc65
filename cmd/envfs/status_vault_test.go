package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// mountRig is a mount of a volume with a Transit key, served by a process of its
// own.
type mountRig struct {
	*testing.T
	vault *vaulttest.Server
	mnt   string
}

func mountVault(t *testing.T, flags ...string) mountRig {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no FUSE: %v", err)
	}
	_ = f.Close() // only looked at
	r := mountRig{t, vaulttest.Start(t), filepath.Join(t.TempDir(), "mnt")}
	r.vault.CreateKey("docs", nil)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("VAULT_ADDR", r.vault.Address)
	t.Setenv("VAULT_TOKEN", r.vault.RootToken)
	dir := filepath.Join(t.TempDir(), "vol")
	r.envfs("init", "--keyring", "vault", "--transit-key", "docs", dir)
	t.Setenv("VAULT_TOKEN", r.vault.Token(2*time.Hour, "root"))
	if err := os.Mkdir(r.mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	r.envfs(append(append([]string{"mount"}, flags...), dir, r.mnt)...)
	t.Cleanup(func() { r.envfs("umount", r.mnt) })
	return r
}

// envfs runs the program and returns its output.
func (r mountRig) envfs(args ...string) string {
	r.Helper()
	var stderr strings.Builder
	cmd := exec.Command("envfs", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.Fatalf("envfs %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

func (r mountRig) status() mountStatus {
	r.Helper()
	var report statusReport
	if err := json.Unmarshal([]byte(r.envfs("status", "--json", r.mnt)), &report); err != nil {
		r.Fatal(err)
	}
	if len(report.Mounts) != 1 || report.Mounts[0].Mountpoint != r.mnt || report.Mounts[0].Status == nil {
		r.Fatalf("%+v", report)
	}
	return *report.Mounts[0].Status
}

func (r mountRig) write(name string) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.mnt, name), []byte("text"), 0o600); err != nil {
		r.Fatal(err)
	}
}

// until waits for what happens in the background of another process.
func (r mountRig) until(what string, holds func() bool) {
	r.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("never: %s\n%s", what, r.envfs("status", r.mnt))
		}
	}
}

// scrape returns the metrics of ours by name, as Prometheus reads them.
func (r mountRig) scrape(url string) map[string]*dto.MetricFamily {
	r.Helper()
	resp, err := http.Get(url)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.Fatalf("%s: %v, %v", resp.Status, err, string(text))
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(text)))
	if err != nil {
		r.Fatalf("%v in\n%s", err, text)
	}
	return families
}

// value returns that of the metric whose labels have the given values.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (float64, bool) {
metric:
	for _, m := range families[name].GetMetric() {
		for i, want := range labels {
			if i >= len(m.Label) || m.Label[i].GetValue() != want {
				continue metric
			}
		}
		switch {
		case m.Gauge != nil:
			return m.Gauge.GetValue(), true
		case m.Counter != nil:
			return m.Counter.GetValue(), true
		case m.Histogram != nil:
			return float64(m.Histogram.GetSampleCount()), true
		}
	}
	return 0, false
}

func TestStatusOfVault(t *testing.T) {
	r := mountVault(t, "--pool-size", "8", "--pool-low-water", "6", "--vault-wait", "100ms", "--metrics", "127.0.0.1:0",
		"--log-file", filepath.Join(t.TempDir(), "log"))
	r.write("a")
	s := r.status()
	v := s.Keyring.Vault
	if s.Keyring.Type != "vault" || v == nil {
		t.Fatalf("%+v", s.Keyring)
	}
	if v.Address != r.vault.Address || v.Mount != "transit" || v.Key != "docs" || !v.LoggedIn || v.UnreachableSince != nil || v.LastError != "" {
		t.Errorf("%+v", *v)
	}
	if left := v.TokenSecondsLeft; left == nil || *left < 7100 || *left > 7200 || v.TokenExpiry == nil {
		t.Errorf("token: %v seconds left, until %v", left, v.TokenExpiry)
	}
	if s.Files.Creates != 1 || s.Files.BytesWritten != 4 || s.Cache.Keys != 1 || s.PID == os.Getpid() {
		t.Errorf("%+v", s)
	}
	text := r.envfs("status", r.mnt)
	for _, want := range []string{`Vault Transit, key "docs" at "transit"`, "VAULT_TOKEN, token good for ", "answers", r.vault.Address} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}

	m := r.scrape(s.Metrics)
	for name, want := range map[string]float64{
		"envfs_key_service_up": 1, "envfs_key_service_logged_in": 1, "envfs_written_bytes_total": 4,
		"envfs_mount_info": 1, "envfs_key_pool_target_keys": 8, "envfs_open_handles": 0,
	} {
		if got, ok := value(m, name); !ok || got != want {
			t.Errorf("%s is %v, %t, want %v", name, got, ok, want)
		}
	}
	if got, ok := value(m, "envfs_operations_total", "create"); !ok || got != 1 {
		t.Errorf("creates: %v, %t", got, ok)
	}
	if got, ok := value(m, "envfs_key_service_request_duration_seconds", "unwrap"); !ok || got < 1 {
		t.Errorf("durations of unwraps: %v, %t", got, ok)
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total", "envfs_key_service_token_expiry_timestamp_seconds"} {
		if got, ok := value(m, name); !ok || got == 0 {
			t.Errorf("%s is %v, %t", name, got, ok)
		}
	}

	// An outage, and its end.
	r.vault.Kill()
	r.write("b") // from the pool
	r.write("c")
	r.write("d")
	r.until("an outage is seen", func() bool { return r.status().Keyring.Vault.UnreachableSince != nil })
	s = r.status()
	if s.Keyring.Vault.LastError != "unreachable" || s.Pool.Ready == 0 {
		t.Errorf("%+v, pool %+v", *s.Keyring.Vault, *s.Pool)
	}
	if up, ok := value(r.scrape(s.Metrics), "envfs_key_service_up"); !ok || up != 0 {
		t.Errorf("up: %v, %t", up, ok)
	}
	r.vault.Restart()
	r.until("the outage is over", func() bool {
		s := r.status()
		return s.Keyring.Vault.UnreachableSince == nil && s.Pool.Ready >= s.Pool.Target
	})
	m = r.scrape(s.Metrics)
	if failed, ok := value(m, "envfs_key_service_errors_total", "unreachable", "wrap"); !ok || failed < 1 {
		t.Errorf("errors: %v, %t", failed, ok)
	}
}

func TestMetricsServeOnlyMetrics(t *testing.T) {
	r := mountVault(t, "--metrics", "127.0.0.1:0", "--log-file", filepath.Join(t.TempDir(), "log"))
	url := r.status().Metrics
	for path, want := range map[string]int{"": http.StatusOK, "/x": http.StatusNotFound, "/../debug/pprof/": http.StatusNotFound} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	resp, err := http.Post(url, "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}
