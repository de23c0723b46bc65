package main

import (
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
)

func pointer[T any](v T) *T { return &v }

const statusWant = `mountpoint          /mnt/clear
directory           /data
access              read-write
process             4711, version v1.2.3, up 26h3m4s
keyring             Vault Transit, key "docs" at "kms"
vault               https://vault:8200, namespace "team"
connection          no answer for 3m0s
login               AppRole, token good for 43m0s, renewed before
last error          unreachable, 2s ago
wrap                12 requests, 1,536 keys; half within 3.1ms, 90 % 4.25ms, 99 % 1.5s; errors: 1 denied, 2 unreachable
version             1 request
keys for new files  212 ready of 256
keys of files       3,122 in memory; 98.2 % of 5,000 look-ups hit; 7 evicted; 1 refused
read                1.0 MiB (1,048,576 bytes) in 9 requests
written             12 bytes in 1 request
operations          20 opens, 1 create, 0 removes, 2 syncs
open now            3 handles; the kernel knows 1,204 inodes
to be sealed        2 files, written and closed
faults              1 operation failed: the log says why
audit log           /var/log/audit and syslog: 42 records, required, 2 lost
audit problem       write /var/log/audit: no space left on device
metrics             http://127.0.0.1:9466/metrics

mountpoint  /mnt/dead
directory   /data2
status      not known: no process answers

mountpoint     /mnt/plain
directory      /data3
access         read-only
process        1, version v1.2.3, up 500ms
keyring        passphrase
keys of files  0 in memory
read           0 bytes in 0 requests
written        0 bytes in 0 requests
operations     0 opens, 0 creates, 0 removes, 0 syncs
open now       0 handles; the kernel knows 0 inodes
`

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	report := statusReport{Mounts: []mountReport{
		{Mountpoint: "/mnt/clear", Directory: "/data", Status: &mountStatus{
			PID: 4711, Version: "v1.2.3", UptimeSecs: 26*3600 + 184, Metrics: "http://127.0.0.1:9466/metrics",
			Keyring: keyringStatus{Type: "vault", Vault: &vaultStatus{
				Address: "https://vault:8200", Namespace: "team", Mount: "kms", Key: "docs", Login: "AppRole", LoggedIn: true,
				TokenExpiry: pointer(now.Add(43 * time.Minute)), TokenRenewable: true,
				UnreachableSince: pointer(now.Add(-3 * time.Minute)),
				LastError:        "unreachable", LastErrorTime: pointer(now.Add(-2 * time.Second)),
			}},
			Pool:  &poolStatus{Ready: 212, Target: 256},
			Cache: cacheStatus{Keys: 3122, Hits: 4910, Misses: 90, HitRatio: pointer(0.982), Evicted: 7, Refused: 1},
			KeyRequests: []keyRequests{
				{
					Operation: "wrap", Requests: 12, Keys: 1536, Errors: map[string]uint64{"unreachable": 2, "denied": 1},
					Latency: &latencyStatus{P50: 0.0031, P90: 0.004251, P99: 1.5, Requests: 12},
				},
				{Operation: "version", Requests: 1},
			},
			Files: fileStatus{
				Reads: 9, BytesRead: 1 << 20, Writes: 1, BytesWritten: 12, Opens: 20, Creates: 1, Syncs: 2, Faults: 1,
				OpenHandles: 3, Inodes: 1204, Unsealed: 2,
			},
			Audit: &auditStatus{
				File: "/var/log/audit", Syslog: true, Required: true, Written: 42, Lost: 2,
				Problem: "write /var/log/audit: no space left on device",
			},
		}},
		{Mountpoint: "/mnt/dead", Directory: "/data2", Error: "no process answers"},
		{Mountpoint: "/mnt/plain", Directory: "/data3", Status: &mountStatus{
			PID: 1, Version: "v1.2.3", UptimeSecs: 0.5, ReadOnly: true, Keyring: keyringStatus{Type: "local"},
		}},
	}}
	var text strings.Builder
	if err := report.write(&text, now); err != nil {
		t.Fatal(err)
	}
	if text.String() != statusWant {
		t.Errorf("got\n%s\nwant\n%s", text.String(), statusWant)
	}
	text.Reset()
	if err := (statusReport{}).write(&text, now); err != nil || text.String() != "nothing is mounted\n" {
		t.Errorf("%q, %v", text.String(), err)
	}
}

func TestDescribeToken(t *testing.T) {
	now := time.Now()
	for want, v := range map[string]vaultStatus{
		"not logged in":         {TokenExpiry: pointer(now.Add(time.Hour))},
		"token does not expire": {LoggedIn: true, TokenRenewable: true},
		"token has expired":     {LoggedIn: true, TokenExpiry: pointer(now.Add(-time.Second))},
		"token good for 1m0s":   {LoggedIn: true, TokenExpiry: pointer(now.Add(time.Minute))},
	} {
		if got := describeToken(&v, now); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestOwnMounts: who asks for all mounts gets each of those that would answer.
func TestOwnMounts(t *testing.T) {
	mount := func(uid, minor uint32, kind, point string) mounts.Mount {
		return mounts.Mount{UID: uid, Device: mounts.Device{Minor: minor}, Type: kind, Point: point}
	}
	table := mounts.Table{
		mount(0, 1, "ext4", "/"), mount(0, 2, mounts.Type, "/root's"), mount(1000, 3, mounts.Type, "/mine"),
		mount(1000, 3, mounts.Type, "/mine/too"), mount(1000, 4, "fuse.sshfs", "/other"), mount(1001, 5, mounts.Type, "/theirs"),
	}
	for uid, want := range map[uint32]string{0: "/root's /mine /theirs", 1000: "/mine", 1001: "/theirs", 1002: ""} {
		var points []string
		for _, m := range ownMounts(table, uid) {
			points = append(points, m.Point)
		}
		if got := strings.Join(points, " "); got != want {
			t.Errorf("user %d: %q, want %q", uid, got, want)
		}
	}
}

func TestAddressWithoutPassword(t *testing.T) {
	for address, want := range map[string]string{
		"https://vault:8200":           "https://vault:8200",
		"https://me:secret@vault:8200": "https://me:xxxxx@vault:8200",
		"unix:///run/agent.sock":       "unix:///run/agent.sock",
		"http://[::1":                  "",
	} {
		if got := withoutPassword(address); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
