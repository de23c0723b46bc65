// Package logging opens the log of a mount: lines of text or JSON on standard
// error or in a file, or messages with a severity for syslog or the journal.
//
// It sits below the mount command. Nothing else decides where a message goes:
// all other packages are handed a *slog.Logger.
package logging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// The formats of a message.
const (
	Text = "text"
	JSON = "json"
)

// The places a log can go to.
const (
	Stderr  = "stderr"
	Syslog  = "syslog"
	Journal = "journal"
	None    = "none"
)

// Options say what is logged, how and where.
type Options struct {
	Format string     // Text or JSON
	Level  slog.Level // messages below are left out
	To     string     // Stderr, Syslog, Journal or None; no matter if File is set
	File   string     // path of a file to append to
	Stderr io.Writer  // where Stderr leads
}

// Log is an open log.
type Log struct {
	*slog.Logger
	Where string    // for people: "syslog", "the file /var/log/envfs.log", …
	File  string    // path of the file it goes to, or ""
	close io.Closer // nil if there is nothing to close
}

// Close ends the log.
func (l *Log) Close() error {
	if l.close == nil {
		return nil
	}
	return l.close.Close()
}

// Open opens a log. Its errors name the place.
func Open(o Options) (*Log, error) {
	switch {
	case o.File != "":
		f, err := os.OpenFile(o.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("log file: %w", err)
		}
		return &Log{Logger: slog.New(o.handler(f, true)), Where: "the file " + o.File, File: o.File, close: f}, nil
	case o.To == Syslog:
		return o.openSyslog()
	case o.To == Journal:
		return o.openJournal()
	case o.To == None:
		return &Log{Logger: slog.New(slog.DiscardHandler), Where: "none"}, nil
	case o.To == Stderr:
		return &Log{Logger: slog.New(o.handler(o.Stderr, true)), Where: "standard error"}, nil
	}
	return nil, fmt.Errorf("log: no such place: %q", o.To)
}

// OpenDaemon opens the log of a process without a terminal whose user did not
// say where it shall go: syslog if one answers, otherwise nowhere.
func OpenDaemon(o Options) (*Log, error) {
	o.To = Syslog
	if l, err := Open(o); err == nil {
		return l, nil
	}
	o.To = None
	l, err := Open(o)
	if err == nil {
		l.Where = "none, since no syslog answers; --log-file keeps one"
	}
	return l, err
}

// handler formats records. What adds a time of its own gets none.
func (o Options) handler(w io.Writer, withTime bool) slog.Handler {
	options := &slog.HandlerOptions{Level: o.Level}
	if !withTime {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	if o.Format == JSON {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func (o Options) openSyslog() (*Log, error) {
	w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "envfs")
	if err != nil {
		return nil, fmt.Errorf("syslog: %w", err)
	}
	h := o.bySeverity(w.Debug, w.Info, w.Warning, w.Err)
	return &Log{Logger: slog.New(h), Where: "syslog", close: w}, nil
}

func (o Options) openJournal() (*Log, error) {
	if !journal.Enabled() {
		return nil, errors.New("journal: no journal on this machine")
	}
	at := func(p journal.Priority) func(string) error {
		fields := map[string]string{"SYSLOG_IDENTIFIER": "envfs"}
		return func(m string) error { return journal.Send(m, p, fields) }
	}
	h := o.bySeverity(at(journal.PriDebug), at(journal.PriInfo), at(journal.PriWarning), at(journal.PriErr))
	return &Log{Logger: slog.New(h), Where: "the journal"}, nil
}

// bySeverity is a handler over a system log whose functions take one message
// of one severity each.
func (o Options) bySeverity(debug, info, warn, err func(string) error) slog.Handler {
	var h severities
	for i, send := range []func(string) error{debug, info, warn, err} {
		h[i] = o.handler(message(send), false)
	}
	return h
}

// message makes a writer of a function that takes one message.
type message func(string) error

func (m message) Write(p []byte) (int, error) {
	if err := m(strings.TrimSuffix(string(p), "\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// severities hands a record to the handler of its level: debug, info, warn or
// error.
type severities [4]slog.Handler

func (s severities) of(level slog.Level) slog.Handler {
	switch {
	case level < slog.LevelInfo:
		return s[0]
	case level < slog.LevelWarn:
		return s[1]
	case level < slog.LevelError:
		return s[2]
	}
	return s[3]
}

// Enabled implements slog.Handler.
func (s severities) Enabled(ctx context.Context, level slog.Level) bool {
	return s.of(level).Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (s severities) Handle(ctx context.Context, r slog.Record) error {
	return s.of(r.Level).Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (s severities) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range s {
		s[i] = s[i].WithAttrs(attrs)
	}
	return s
}

// WithGroup implements slog.Handler.
func (s severities) WithGroup(name string) slog.Handler {
	for i := range s {
		s[i] = s[i].WithGroup(name)
	}
	return s
}
