package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/envfs/envfs/keyring"
)

func TestHintsAreReachable(t *testing.T) {
	for i, row := range hints() {
		for _, earlier := range hints()[:i] {
			if errors.Is(row.class, earlier.class) {
				t.Errorf("the hint for %q is never shown: %q comes first", row.class, earlier.class)
			}
		}
		got := hintFor(fmt.Errorf("wrapped: %w", about("/data", row.class)))
		if want := strings.ReplaceAll(row.hint, "PATH", "/data"); got != want {
			t.Errorf("hint for %q is %q, want %q", row.class, got, want)
		}
	}
}

// Rules of the messages, see main.go.
func TestHintStyle(t *testing.T) {
	for _, row := range hints() {
		first := []rune(row.hint)[0]
		if unicode.IsUpper(first) && !strings.HasPrefix(row.hint, "FUSE") || strings.HasSuffix(row.hint, ".") || strings.Contains(row.hint, "\n") {
			t.Errorf("hint for %q: %q", row.class, row.hint)
		}
	}
}

func TestHintOfKeyServiceComesFirst(t *testing.T) {
	err := about("/data", &keyring.Error{Class: keyring.ErrUnreachable, Hint: "wait"})
	if got := hintFor(err); got != "wait" {
		t.Errorf("hint is %q", got)
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"":            "''",
		"/mnt/clear":  "/mnt/clear",
		"two words":   "'two words'",
		"it's":        `'it'\''s'`,
		"$(reboot)":   "'$(reboot)'",
		"ünï":         "'ünï'",
		"a,b=c+d@e:f": "a,b=c+d@e:f",
	} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) = %s, want %s", word, got, want)
		}
	}
}
