package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

var (
	_ fmt.Stringer   = (*Key)(nil)
	_ fmt.GoStringer = (*Key)(nil)
	_ fmt.Formatter  = (*Key)(nil)
	_ slog.LogValuer = (*Key)(nil)
)

// String returns "[redacted]".
func (k *Key) String() string { return redacted }

// GoString returns "[redacted]".
func (k *Key) GoString() string { return redacted }

// Format prints "[redacted]" for every verb and flag.
func (k *Key) Format(s fmt.State, _ rune) {
	// A failing writer fails again, and reports it, in fmt itself.
	_, _ = io.WriteString(s, redacted)
}

// MarshalJSON returns "[redacted]" as a JSON string.
func (k *Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "[redacted]".
func (k *Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue returns "[redacted]".
func (k *Key) LogValue() slog.Value { return slog.StringValue(redacted) }
