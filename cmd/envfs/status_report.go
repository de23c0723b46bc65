package main

import (
	"time"

	"github.com/envfs/envfs/keyring"
)

// statusReport is what envfs status says. Programs may read it.
type statusReport struct {
	Mounts []mountReport `json:"mounts"`
}

// mountReport is about one mount: its status, or why there is none.
type mountReport struct {
	Mountpoint string       `json:"mountpoint"`
	Directory  string       `json:"directory"` // of the ciphertext
	Status     *mountStatus `json:"status,omitempty"`
	Error      string       `json:"error,omitempty"`
}

// mountStatus is what the process that serves a mount says of it. Counts are
// since it was mounted.
type mountStatus struct {
	PID         int           `json:"pid"`
	Version     string        `json:"version"`
	Started     time.Time     `json:"started"`
	UptimeSecs  float64       `json:"uptime_seconds"`
	ReadOnly    bool          `json:"read_only"`
	Metrics     string        `json:"metrics,omitempty"` // URL
	Frozen      *freezeStatus `json:"frozen,omitempty"`  // missing: changes go on
	Keyring     keyringStatus `json:"keyring"`
	Pool        *poolStatus   `json:"pool,omitempty"` // missing in read-only mounts
	Cache       cacheStatus   `json:"cache"`
	KeyRequests []keyRequests `json:"key_requests"` // one entry for each kind that was made
	Files       fileStatus    `json:"files"`
	Audit       *auditStatus  `json:"audit,omitempty"` // missing without an audit log
}

// freezeStatus is about a mount whose changes are held.
type freezeStatus struct {
	Since     time.Time `json:"since"`
	LimitSecs float64   `json:"limit_seconds,omitempty"` // after which it thaws by itself; missing: never
	Held      int       `json:"held_requests"`
}

// keyringStatus says what the keys of a mount depend on.
type keyringStatus struct {
	Type  string       `json:"type"` // local or vault
	Vault *vaultStatus `json:"vault,omitempty"`
}

// vaultStatus is the state of a mount's Vault as the mount last saw it.
type vaultStatus struct {
	Address          string     `json:"address"`
	Namespace        string     `json:"namespace,omitempty"`
	Mount            string     `json:"mount"` // of Transit
	Key              string     `json:"key"`
	Login            string     `json:"login"` // how it logs in
	LoggedIn         bool       `json:"logged_in"`
	TokenExpiry      *time.Time `json:"token_expiry,omitempty"` // missing: never, or not known
	TokenSecondsLeft *float64   `json:"token_seconds_left,omitempty"`
	TokenRenewable   bool       `json:"token_renewable"`
	UnreachableSince *time.Time `json:"unreachable_since,omitempty"` // missing: the last request was answered
	LastError        string     `json:"last_error,omitempty"`        // denied, revoked, unreachable, corrupt or config; stays when things work again
	LastErrorTime    *time.Time `json:"last_error_time,omitempty"`
}

// poolStatus counts the keys for new files.
type poolStatus struct {
	Ready  int `json:"ready"`
	Target int `json:"target"` // to be held ready now
}

// cacheStatus counts the keys of files that are or were open.
type cacheStatus struct {
	Keys     int      `json:"keys"`
	Hits     uint64   `json:"hits"`
	Misses   uint64   `json:"misses"`
	HitRatio *float64 `json:"hit_ratio,omitempty"` // of 0 to 1; missing before the first look-up
	Evicted  uint64   `json:"evicted"`
	Refused  uint64   `json:"refused"` // dropped because the service refused them
}

// keyRequests counts what the key service was asked in one kind of request.
type keyRequests struct {
	Operation string            `json:"operation"` // wrap, unwrap, rewrap or version
	Requests  uint64            `json:"requests"`
	Keys      uint64            `json:"keys"`             // in all of them
	Errors    map[string]uint64 `json:"errors,omitempty"` // by kind: of requests, or of single keys in them
	Latency   *latencyStatus    `json:"latency,omitempty"`
}

// latencyStatus says how long the requests of the last minutes took.
type latencyStatus struct {
	P50      float64 `json:"p50_seconds"`
	P90      float64 `json:"p90_seconds"`
	P99      float64 `json:"p99_seconds"`
	Requests uint64  `json:"requests"` // that this is about
}

// fileStatus counts what applications did.
type fileStatus struct {
	Reads        uint64 `json:"reads"`
	BytesRead    uint64 `json:"bytes_read"`
	Writes       uint64 `json:"writes"`
	BytesWritten uint64 `json:"bytes_written"`
	Opens        uint64 `json:"opens"`
	Creates      uint64 `json:"creates"`
	Removes      uint64 `json:"removes"`
	Syncs        uint64 `json:"syncs"`
	Faults       uint64 `json:"faults"` // operations that failed for a reason that the log tells
	OpenHandles  int    `json:"open_handles"`
	Inodes       int    `json:"inodes"`   // that the kernel knows
	Unsealed     int    `json:"unsealed"` // files that were written and closed and wait to be sealed
}

// auditStatus is the state of the audit log.
type auditStatus struct {
	File     string `json:"file,omitempty"`
	Syslog   bool   `json:"syslog,omitempty"`
	Required bool   `json:"required"`
	Written  uint64 `json:"written"`
	Lost     uint64 `json:"lost"`
	Problem  string `json:"problem,omitempty"` // why it takes no records now
}

// className names a class of errors of a key service for programs.
func className(class error) string {
	switch class {
	case keyring.ErrDenied:
		return "denied"
	case keyring.ErrRevoked:
		return "revoked"
	case keyring.ErrUnreachable:
		return "unreachable"
	case keyring.ErrCorrupt:
		return "corrupt"
	case keyring.ErrConfig:
		return "config"
	}
	return ""
}

// errorKinds returns the counts by name, zeros included.
func errorKinds(c keyring.ErrorCounts) map[string]uint64 {
	return map[string]uint64{
		"denied": c.Denied, "revoked": c.Revoked, "unreachable": c.Unreachable, "corrupt": c.Corrupt,
		"config": c.Config, "cancelled": c.Cancelled, "other": c.Other,
	}
}
