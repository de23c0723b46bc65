package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
)

// fixture is a fake key service and one key that it wrapped.
type fixture struct {
	arena *secret.Arena
	fake  *keyringtest.Fake
}

func newFixture() fixture {
	arena := secret.NewArena(nil)
	return fixture{arena, keyringtest.NewFake(arena)}
}

func (f fixture) gen() *secret.Key { return f.arena.Random(48) }

// wrap wraps n keys. It leaves the fake's delay and faults out.
func (f fixture) wrap(t *testing.T, n int) ([]*secret.Key, []keyring.Wrapped) {
	t.Helper()
	keys := make([]*secret.Key, n)
	for i := range keys {
		keys[i] = f.gen()
	}
	wrapped, err := f.fake.Wrap(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	return keys, wrapped
}

// wantCells checks how many keys are in memory.
func (f fixture) wantCells(t *testing.T, when string, want int) {
	t.Helper()
	if got := f.arena.Stats().Cells; got != want {
		t.Errorf("%s: %d keys in memory; want %d", when, got, want)
	}
}

func TestWrappedParse(t *testing.T) {
	for _, c := range []struct {
		w       string
		service string
		version int // 0: refused
		sealed  string
	}{
		{"vault:v1:AA==", "vault", 1, "AA=="},
		{"vault:v12:A+/9", "vault", 12, "A+/9"},
		{"local:v1:AA==", "vault", 0, ""},
		{"vaults:v1:AA==", "vault", 0, ""},
		{"vault:1:AA==", "vault", 0, ""},
		{"vault:v:AA==", "vault", 0, ""},
		{"vault:v0:AA==", "vault", 0, ""},
		{"vault:v-1:AA==", "vault", 0, ""},
		{"vault:v+1:AA==", "vault", 0, ""},
		{"vault:v01:AA==", "vault", 0, ""},
		{"vault:v 1:AA==", "vault", 0, ""},
		{"vault:v1", "vault", 0, ""},
		{"vault:v1:", "vault", 0, ""},
		{"vault:v1:AA==\n", "vault", 0, ""},
		{"vault:v1:AA:AA", "vault", 0, ""},
		{`vault:v1:A"A`, "vault", 0, ""},
		{"vault:v1:A-_A", "vault", 0, ""},
		{"vault:v99999999999999999999:AA==", "vault", 0, ""},
		{"", "vault", 0, ""},
		{":v1:AA==", "", 1, "AA=="},
		{"vault:v1:" + strings.Repeat("A", keyring.MaxWrapped-9), "vault", 1, strings.Repeat("A", keyring.MaxWrapped-9)},
		{"vault:v1:" + strings.Repeat("A", keyring.MaxWrapped-8), "vault", 0, ""},
	} {
		version, sealed, err := keyring.Wrapped(c.w).Parse(c.service)
		if c.version == 0 {
			if keyring.Class(err) != keyring.ErrCorrupt {
				t.Errorf("%.40q: version %d, %v; want corrupt", c.w, version, err)
			}
			continue
		}
		if err != nil || version != c.version || sealed != c.sealed {
			t.Errorf("%.40q: %d, %.20q, %v", c.w, version, sealed, err)
		}
		if v, err := keyring.Wrapped(c.w).Version(); err != nil || v != c.version {
			t.Errorf("%.40q: Version %d, %v; want %d", c.w, v, err, c.version)
		}
	}
}

func FuzzWrappedParse(f *testing.F) {
	seeds := []string{"vault:v1:AA==", "vault:v01:AA==", "local:v3:", "", "::", "vault:v1:\n"}
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		w := keyring.Wrapped(s)
		version, err := w.Version()
		if err != nil {
			return
		}
		service, _, _ := strings.Cut(s, ":")
		_, sealed, err := w.Parse(service)
		if err != nil {
			t.Fatalf("%q has a version but does not parse: %v", s, err)
		}
		if again := fmt.Sprintf("%s:v%d:%s", service, version, sealed); again != s {
			t.Fatalf("%q parses like %q", s, again)
		}
	})
}

func TestErrorClasses(t *testing.T) {
	cause := errors.New("cause")
	classes := []error{keyring.ErrDenied, keyring.ErrRevoked, keyring.ErrUnreachable, keyring.ErrCorrupt, keyring.ErrConfig}
	for _, class := range classes {
		err := fmt.Errorf("open x: %w", &keyring.Error{Class: class, Op: "unwrap", Hint: "do this", Err: cause})
		for _, other := range classes {
			if errors.Is(err, other) != (other == class) {
				t.Errorf("%v is %v: %t", class, other, errors.Is(err, other))
			}
		}
		if keyring.Class(err) != class || keyring.Class(class) != class {
			t.Errorf("Class of %v: %v", err, keyring.Class(err))
		}
		if !errors.Is(err, cause) || keyring.HintOf(err) != "do this" {
			t.Errorf("%v lost its cause or hint", err)
		}
		if want := "open x: unwrap: " + class.Error() + ": cause"; err.Error() != want {
			t.Errorf("%q; want %q", err, want)
		}
	}
	for _, err := range []error{nil, cause, context.Canceled, keyring.ErrClosed} {
		if keyring.Class(err) != nil || keyring.HintOf(err) != "" {
			t.Errorf("%v has class %v", err, keyring.Class(err))
		}
	}
	if err := (&keyring.Error{Class: keyring.ErrDenied}); err.Error() != keyring.ErrDenied.Error() || !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("bare: %v", err)
	}
}
