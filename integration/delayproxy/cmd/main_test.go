package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestRun(t *testing.T) {
	signals := make(chan os.Signal, 3)
	for _, s := range []os.Signal{syscall.SIGUSR1, syscall.SIGUSR1, syscall.SIGTERM} {
		signals <- s
	}
	var out strings.Builder
	if err := run([]string{"127.0.0.1:0", "127.0.0.1:1", "10ms"}, signals, &out); err != nil {
		t.Fatal(err)
	}
	_, said, _ := strings.Cut(out.String(), " -> ")
	if want := "127.0.0.1:1, round trip 10ms more\noutage\nback\n"; said != want {
		t.Errorf("says %q, want %q", said, want)
	}
	for _, args := range [][]string{nil, {"127.0.0.1:0", "127.0.0.1:1"}, {"127.0.0.1:0", "127.0.0.1:1", "10"}} {
		if err := run(args, signals, &out); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
}
