package logging

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// Warner is a handler for commands that end soon: it hands warnings and errors
// to a function that prints them, without time and level, and leaves out the
// rest.
type Warner struct {
	print func(format string, args ...any)
	attrs []slog.Attr
}

// NewWarner returns a handler that prints by the given function.
func NewWarner(print func(format string, args ...any)) *Warner { return &Warner{print: print} }

// Enabled implements slog.Handler.
func (w *Warner) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler: "message (key: value, key: value)".
func (w *Warner) Handle(_ context.Context, r slog.Record) error {
	attrs := w.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs[:len(attrs):len(attrs)], a)
		return true
	})
	if len(attrs) == 0 {
		w.print("%s", r.Message)
		return nil
	}
	var parts []string
	for _, a := range attrs {
		parts = append(parts, fmt.Sprintf("%s: %v", a.Key, a.Value.Resolve()))
	}
	w.print("%s (%s)", r.Message, strings.Join(parts, ", "))
	return nil
}

// WithAttrs implements slog.Handler.
func (w *Warner) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Warner{print: w.print, attrs: append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)}
}

// WithGroup implements slog.Handler. Groups are not shown.
func (w *Warner) WithGroup(string) slog.Handler { return w }
