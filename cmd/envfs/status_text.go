package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// write prints the report for people, as of now.
func (r statusReport) write(w io.Writer, now time.Time) error {
	for i, m := range r.Mounts {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		var l lines
		l.addMount(m, now)
		if err := l.write(w); err != nil {
			return err
		}
	}
	if len(r.Mounts) == 0 {
		_, err := fmt.Fprintln(w, "nothing is mounted")
		return err
	}
	return nil
}

func (l *lines) addMount(m mountReport, now time.Time) {
	l.add("mountpoint", "%s", m.Mountpoint)
	l.add("directory", "%s", m.Directory)
	s := m.Status
	if s == nil {
		l.add("status", "not known: %s", m.Error)
		return
	}
	how := "read-write"
	if s.ReadOnly {
		how = "read-only"
	}
	l.add("access", "%s", how)
	l.add("process", "%d, version %s, up %s", s.PID, s.Version, seconds(s.UptimeSecs))
	if f := s.Frozen; f != nil {
		l.add("frozen", "for %s, %s held", showTime(now.Sub(f.Since)), countOf(uint64(f.Held), "request"))
	}
	l.addService(s.Keyring, now)
	for _, r := range s.KeyRequests {
		l.addRequests(r)
	}
	l.addKeys(s)
	l.addFiles(s.Files)
	if s.Audit != nil {
		l.addAudit(s.Audit)
	}
	if s.Metrics != "" {
		l.add("metrics", "%s", s.Metrics)
	}
}

// seconds shows a time as people read it.
func seconds(s float64) string { return showTime(time.Duration(s * float64(time.Second))) }

// showTime leaves out digits that nobody reads.
func showTime(d time.Duration) string {
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		d = d.Round(10 * time.Microsecond)
	default:
		d = d.Round(time.Microsecond)
	}
	return d.String()
}

func (l *lines) addService(k keyringStatus, now time.Time) {
	v := k.Vault
	if v == nil {
		l.add("keyring", "passphrase")
		return
	}
	l.add("keyring", "Vault Transit, key %q at %q", v.Key, v.Mount)
	address := v.Address
	if v.Namespace != "" {
		address += fmt.Sprintf(", namespace %q", v.Namespace)
	}
	l.add("vault", "%s", address)
	if since := v.UnreachableSince; since != nil {
		l.add("connection", "no answer for %s", showTime(now.Sub(*since)))
	} else {
		l.add("connection", "answers")
	}
	l.add("login", "%s, %s", v.Login, describeToken(v, now))
	if v.LastError != "" {
		when := ""
		if v.LastErrorTime != nil {
			when = fmt.Sprintf(", %s ago", showTime(now.Sub(*v.LastErrorTime)))
		}
		l.add("last error", "%s%s", v.LastError, when)
	}
}

func describeToken(v *vaultStatus, now time.Time) string {
	switch {
	case !v.LoggedIn:
		return "not logged in"
	case v.TokenExpiry == nil:
		return "token does not expire"
	case v.TokenExpiry.Before(now):
		return "token has expired"
	}
	text := fmt.Sprintf("token good for %s", showTime(v.TokenExpiry.Sub(now)))
	if v.TokenRenewable {
		text += ", renewed before"
	}
	return text
}

func (l *lines) addRequests(r keyRequests) {
	text := countOf(r.Requests, "request")
	if r.Operation != "version" {
		text += ", " + countOf(r.Keys, "key")
	}
	if t := r.Latency; t != nil {
		text += fmt.Sprintf("; half within %s, 90 %% %s, 99 %% %s", seconds(t.P50), seconds(t.P90), seconds(t.P99))
	}
	if len(r.Errors) > 0 {
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
			kinds = append(kinds, fmt.Sprintf("%s %s", count(r.Errors[kind]), kind))
		}
		text += "; errors: " + strings.Join(kinds, ", ")
	}
	l.add(r.Operation, "%s", text)
}

func count(n uint64) string { return number(int64(n)) }

func countOf(n uint64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return count(n) + " " + thing
}

func (l *lines) addKeys(s *mountStatus) {
	if s.Pool != nil {
		l.add("keys for new files", "%s ready of %s", number(int64(s.Pool.Ready)), number(int64(s.Pool.Target)))
	}
	c := s.Cache
	text := number(int64(c.Keys)) + " in memory"
	if c.HitRatio != nil {
		text += fmt.Sprintf("; %.1f %% of %s look-ups hit", 100**c.HitRatio, count(c.Hits+c.Misses))
	}
	if c.Evicted > 0 {
		text += fmt.Sprintf("; %s evicted", count(c.Evicted))
	}
	if c.Refused > 0 {
		text += fmt.Sprintf("; %s refused", count(c.Refused))
	}
	l.add("keys of files", "%s", text)
}

func (l *lines) addFiles(f fileStatus) {
	l.add("read", "%s in %s", size(int64(f.BytesRead)), countOf(f.Reads, "request"))
	l.add("written", "%s in %s", size(int64(f.BytesWritten)), countOf(f.Writes, "request"))
	l.add("operations", "%s, %s, %s, %s",
		countOf(f.Opens, "open"), countOf(f.Creates, "create"), countOf(f.Removes, "remove"), countOf(f.Syncs, "sync"))
	l.add("open now", "%s; the kernel knows %s",
		countOf(uint64(f.OpenHandles), "handle"), countOf(uint64(f.Inodes), "inode"))
	if f.Unsealed > 0 {
		l.add("to be sealed", "%s, written and closed", countOf(uint64(f.Unsealed), "file"))
	}
	if f.Faults > 0 {
		l.add("faults", "%s failed: the log says why", countOf(f.Faults, "operation"))
	}
}

func (l *lines) addAudit(a *auditStatus) {
	var places []string
	if a.File != "" {
		places = append(places, a.File)
	}
	if a.Syslog {
		places = append(places, "syslog")
	}
	text := fmt.Sprintf("%s: %s", strings.Join(places, " and "), countOf(a.Written, "record"))
	if a.Required {
		text += ", required"
	}
	if a.Lost > 0 {
		text += fmt.Sprintf(", %s lost", count(a.Lost))
	}
	l.add("audit log", "%s", text)
	if a.Problem != "" {
		l.add("audit problem", "%s", a.Problem)
	}
}
