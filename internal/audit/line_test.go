package audit

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func TestLine(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 5, 20, time.FixedZone("", 3600))
	for _, test := range []struct {
		record Record
		want   string
	}{
		{
			Record{
				Time: at, Op: "rename", UID: 1000, GID: 100, PID: 4711, Command: "mv", Path: "/a & b", NewPath: "/c\nd",
				FileID: "00ff", KEKVersion: 3,
			},
			`{"time":"2026-03-01T11:00:05.000000020Z","op":"rename","uid":1000,"gid":100,"pid":4711,"command":"mv",` +
				`"path":"/a & b","new_path":"/c\nd","file_id":"00ff","kek_version":3,"outcome":"ok"}`,
		},
		{
			Record{Time: at, Op: "rekey", Command: "envfs", StoredPath: "/\xfe", FileID: "00", NewFileID: "01"},
			`{"time":"2026-03-01T11:00:05.000000020Z","op":"rekey","uid":0,"gid":0,"pid":0,"command":"envfs",` +
				`"stored_path":"/\\xfe","file_id":"00","new_file_id":"01","outcome":"ok"}`,
		},
		{
			Record{Time: at, Op: "open", Write: true, Path: "/x", Outcome: unix.EKEYREVOKED},
			`{"time":"2026-03-01T11:00:05.000000020Z","op":"open","write":true,"uid":0,"gid":0,"pid":0,"path":"/x","outcome":"EKEYREVOKED"}`,
		},
		{
			Record{Time: at, Op: "open", Path: "/\xff\\", Outcome: 4000},
			`{"time":"2026-03-01T11:00:05.000000020Z","op":"open","uid":0,"gid":0,"pid":0,"path":"/\\xff\\\\","outcome":"errno 4000"}`,
		},
	} {
		if got := string(test.record.line()); got != test.want+"\n" {
			t.Errorf("line is\n%s, want\n%s", got, test.want)
		}
	}
}

func TestEscape(t *testing.T) {
	for text, want := range map[string]string{
		"":                "",
		"plain":           "plain",
		"gr\u00fc\u00df":  "gr\u00fc\u00df",
		`\`:               `\\`,
		`\xff`:            `\\xff`,
		"\xff":            `\xff`,
		"a\xc3":           `a\xc3`,
		"\xc3\xa9\xa9b":   "\u00e9" + `\xa9b`,
		"\xed\xa0\x80":    `\xed\xa0\x80`, // a surrogate, which is no character
		"\ufffd":          "\ufffd",       // the character itself
		"\x00\x1b[2J\x7f": "\x00\x1b[2J\x7f",
	} {
		if got := escape(text); got != want {
			t.Errorf("escape(%q) is %q, want %q", text, got, want)
		}
	}
}

// unescape is what a reader of the log does.
func unescape(t *testing.T, s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], `\\`):
			b.WriteByte('\\')
			i++
		default:
			n, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil || s[i+1] != 'x' {
				t.Fatalf("%q at %d", s, i)
			}
			b.WriteByte(byte(n))
			i += 3
		}
	}
	return b.String()
}

func FuzzLineLosesNothing(f *testing.F) {
	for _, seed := range []string{"/a/b", "/\xff\xfe", `/\x41\`, "/\u2028\n\"", "\xf0\x9f\x98", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		line := Record{Op: "open", Path: path}.line()
		if strings.Count(string(line), "\n") != 1 || !strings.HasSuffix(string(line), "\n") || !utf8.Valid(line) {
			t.Errorf("%q is no line of text", line)
		}
		var read lineForm
		if err := json.Unmarshal(line, &read); err != nil {
			t.Fatal(err)
		}
		if got := unescape(t, read.Path); got != path {
			t.Errorf("%q comes back as %q", path, got)
		}
	})
}
