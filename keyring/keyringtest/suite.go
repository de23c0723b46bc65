// Package keyringtest holds the suite of tests that each key service passes,
// and [Fake], a key service in memory that fails as it is told.
package keyringtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Fixture is a key service under test, fresh for each test.
type Fixture struct {
	Arena   *secret.Arena
	Keyring keyring.Keyring
	Other   keyring.Keyring    // the same kind of service with another KEK
	Rotate  func(t *testing.T) // adds a KEK version to Keyring, which becomes the newest
}

// Run tests the contract of [keyring.Keyring], [keyring.Rewrapper] and
// [keyring.VersionReader].
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Fixture)
	}{
		{"batch sizes keep order", testBatches},
		{"payload sizes", testPayloads},
		{"keys wiped by the caller", testCallerWipes},
		{"same key wraps differently", testWrapsDiffer},
		{"version", testVersion},
		{"an item's failure is that item's", testItemFailure},
		{"garbled", testGarbled},
		{"foreign", testForeign},
		{"another version number", testOtherVersion},
		{"cancelled", testCancelled},
		{"rewrap", testRewrap},
		{"rewrap item failure", testRewrapFailure},
		{"concurrent", testConcurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newFixture(t)) })
	}
}

// payload is the size that envfs wraps: a DEK and a file ID.
const payload = 48

func (f Fixture) keys(n, size int) []*secret.Key {
	keys := make([]*secret.Key, n)
	for i := range keys {
		keys[i] = f.Arena.Random(size)
	}
	return keys
}

func (f Fixture) wrap(t *testing.T, keys []*secret.Key) []keyring.Wrapped {
	t.Helper()
	wrapped, err := f.Keyring.Wrap(t.Context(), keys)
	if err != nil {
		t.Fatalf("Wrap of %d: %v", len(keys), err)
	}
	if len(wrapped) != len(keys) {
		t.Fatalf("Wrap of %d returned %d", len(keys), len(wrapped))
	}
	return wrapped
}

func unwrap(t *testing.T, kr keyring.Keyring, wrapped []keyring.Wrapped) []keyring.Unwrapped {
	t.Helper()
	out, err := kr.Unwrap(t.Context(), wrapped)
	if err != nil {
		t.Fatalf("Unwrap of %d: %v", len(wrapped), err)
	}
	if len(out) != len(wrapped) {
		t.Fatalf("Unwrap of %d returned %d", len(wrapped), len(out))
	}
	for i, u := range out {
		if (u.Key == nil) == (u.Err == nil) {
			t.Fatalf("item %d: key or error, but not both: %v, %v", i, u.Key != nil, u.Err)
		}
	}
	return out
}

// mustOpen checks that wrapped opens to keys, in order.
func mustOpen(t *testing.T, kr keyring.Keyring, wrapped []keyring.Wrapped, keys []*secret.Key) {
	t.Helper()
	for i, u := range unwrap(t, kr, wrapped) {
		if u.Err != nil {
			t.Fatalf("item %d of %d: %v", i, len(wrapped), u.Err)
		}
		if !u.Key.Equal(keys[i]) {
			t.Fatalf("item %d of %d: another key came back", i, len(wrapped))
		}
		u.Key.Wipe()
	}
}

func testBatches(t *testing.T, f Fixture) {
	for _, n := range []int{0, 1, 2, 127, 128, 129, 300} {
		keys := f.keys(n, payload)
		mustOpen(t, f.Keyring, f.wrap(t, keys), keys)
	}
}

func testPayloads(t *testing.T, f Fixture) {
	for _, size := range []int{1, 15, 16, 17, 32, 47, payload, 49, secret.MaxSize} {
		keys := f.keys(2, size)
		wrapped := f.wrap(t, keys)
		for i, u := range unwrap(t, f.Keyring, wrapped) {
			if u.Err != nil || !u.Key.Equal(keys[i]) || u.Key.Len() != size {
				t.Fatalf("size %d: %v", size, u.Err)
			}
		}
	}
	// Sizes of one request may differ.
	mixed := []*secret.Key{f.Arena.Random(1), f.Arena.Random(64), f.Arena.Random(48)}
	mustOpen(t, f.Keyring, f.wrap(t, mixed), mixed)
}

func testCallerWipes(t *testing.T, f Fixture) {
	key := f.Arena.Random(payload)
	want := bytes.Clone(key.Bytes())
	wrapped := f.wrap(t, []*secret.Key{key})
	key.Wipe()
	u := unwrap(t, f.Keyring, wrapped)[0]
	if u.Err != nil || !bytes.Equal(u.Key.Bytes(), want) {
		t.Fatalf("after the caller wiped the key: %v", u.Err)
	}
	u.Key.Wipe() // the results are the caller's as well
	u = unwrap(t, f.Keyring, wrapped)[0]
	if u.Err != nil || !bytes.Equal(u.Key.Bytes(), want) {
		t.Fatalf("after the caller wiped the result: %v", u.Err)
	}
}

func testWrapsDiffer(t *testing.T, f Fixture) {
	key := f.Arena.Random(payload)
	wrapped := f.wrap(t, []*secret.Key{key, key})
	if wrapped[0] == wrapped[1] {
		t.Fatal("wrapping is deterministic")
	}
	for _, w := range wrapped {
		if i := strings.IndexFunc(string(w), func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
			t.Fatalf("wrapped key is not printable ASCII: %q", w)
		}
	}
}

func testVersion(t *testing.T, f Fixture) {
	for want := 1; want <= 2; want++ {
		if got, err := f.wrap(t, f.keys(1, payload))[0].Version(); err != nil || got != want {
			t.Fatalf("wrapped under version %d, %v; want %d", got, err, want)
		}
		if vr, ok := f.Keyring.(keyring.VersionReader); ok {
			if got, err := vr.LatestVersion(t.Context()); err != nil || got != want {
				t.Fatalf("LatestVersion: %d, %v; want %d", got, err, want)
			}
		}
		f.Rotate(t)
	}
}

func testItemFailure(t *testing.T, f Fixture) {
	for _, n := range []int{1, 3, 129} {
		for _, bad := range []int{0, n / 2, n - 1} {
			keys := f.keys(n, payload)
			wrapped := f.wrap(t, keys)
			wrapped[bad] = flip(wrapped[bad])
			for i, u := range unwrap(t, f.Keyring, wrapped) {
				switch {
				case i == bad && !isOnly(u.Err, keyring.ErrCorrupt):
					t.Fatalf("bad item %d of %d: %v; want corrupt", i, n, u.Err)
				case i != bad && (u.Err != nil || !u.Key.Equal(keys[i])):
					t.Fatalf("item %d of %d beside a bad one: %v", i, n, u.Err)
				}
			}
		}
	}
}

// flip changes one character in the middle of the sealed bytes.
func flip(w keyring.Wrapped) keyring.Wrapped {
	b := []byte(w)
	at := len(b) - 20
	if b[at] == 'A' {
		b[at] = 'B'
	} else {
		b[at] = 'A'
	}
	return keyring.Wrapped(b)
}

// isOnly reports whether err is of the class and of no other.
func isOnly(err, class error) bool {
	for _, c := range []error{keyring.ErrDenied, keyring.ErrRevoked, keyring.ErrUnreachable, keyring.ErrCorrupt, keyring.ErrConfig} {
		if errors.Is(err, c) != (c == class) {
			return false
		}
	}
	return keyring.Class(err) == class
}

func testGarbled(t *testing.T, f Fixture) {
	w := string(f.wrap(t, f.keys(1, payload))[0])
	service, sealed := w[:strings.Index(w, ":")], w[strings.LastIndex(w, ":")+1:]
	for name, garbled := range map[string]string{
		"empty":             "",
		"no colon":          "x",
		"only the prefix":   service + ":v1:",
		"no version":        service + ":" + sealed,
		"version of words":  service + ":vone:" + sealed,
		"version zero":      service + ":v0:" + sealed,
		"negative version":  service + ":v-1:" + sealed,
		"leading zero":      service + ":v01:" + sealed,
		"huge version":      service + ":v99999999999999999999:" + sealed,
		"another service":   "other:v1:" + sealed,
		"cut short":         w[:len(w)-8],
		"cut to nothing":    w[:len(w)-len(sealed)+4],
		"longer":            w + "AAAA",
		"not base64":        w[:len(w)-8] + "!!!!!!!!",
		"newline at end":    w + "\n",
		"quote":             w[:20] + `","x":"` + w[20:],
		"NUL":               w[:20] + "\x00" + w[20:],
		"not UTF-8":         w[:20] + "\xff\xfe" + w[20:],
		"very long":         w + strings.Repeat("A", 1<<16),
		"space before":      " " + w,
		"doubled":           w + w,
		"last byte changed": w[:len(w)-6] + "AAAAAA",
	} {
		t.Run(name, func(t *testing.T) {
			if garbled == w {
				t.Skip("is the valid one")
			}
			u := unwrap(t, f.Keyring, []keyring.Wrapped{keyring.Wrapped(garbled)})[0]
			if !isOnly(u.Err, keyring.ErrCorrupt) {
				t.Fatalf("%.80q: %v; want corrupt", garbled, u.Err)
			}
		})
	}
}

func testForeign(t *testing.T, f Fixture) {
	keys := f.keys(2, payload)
	for i, u := range unwrap(t, f.Other, f.wrap(t, keys)) {
		if !isOnly(u.Err, keyring.ErrCorrupt) {
			t.Fatalf("item %d of another KEK: %v; want corrupt", i, u.Err)
		}
	}
}

func testOtherVersion(t *testing.T, f Fixture) {
	w := string(f.wrap(t, f.keys(1, payload))[0])
	future := keyring.Wrapped(strings.Replace(w, ":v1:", ":v7:", 1))
	if err := unwrap(t, f.Keyring, []keyring.Wrapped{future})[0].Err; keyring.Class(err) == nil {
		t.Fatalf("version that does not exist: %v; want an error of a class", err)
	}
	f.Rotate(t)
	moved := keyring.Wrapped(strings.Replace(w, ":v1:", ":v2:", 1))
	if err := unwrap(t, f.Keyring, []keyring.Wrapped{moved})[0].Err; !isOnly(err, keyring.ErrCorrupt) {
		t.Fatalf("version 1 relabelled as version 2: %v; want corrupt", err)
	}
}

func testCancelled(t *testing.T, f Fixture) {
	keys := f.keys(1, payload)
	wrapped := f.wrap(t, keys)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(op string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) || keyring.Class(err) != nil {
			t.Errorf("%s: %v (class %v); want context.Canceled without a class", op, err, keyring.Class(err))
		}
	}
	_, err := f.Keyring.Wrap(ctx, keys)
	check("Wrap", err)
	_, err = f.Keyring.Unwrap(ctx, wrapped)
	check("Unwrap", err)
	if rw, ok := f.Keyring.(keyring.Rewrapper); ok {
		_, err = rw.Rewrap(ctx, wrapped)
		check("Rewrap", err)
	}
	late, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	if _, err := f.Keyring.Unwrap(late, wrapped); !isOnly(err, keyring.ErrUnreachable) {
		t.Errorf("Unwrap after the deadline: %v; want unreachable", err)
	}
	mustOpen(t, f.Keyring, wrapped, keys)
}

func rewrapper(t *testing.T, f Fixture) keyring.Rewrapper {
	t.Helper()
	rw, ok := f.Keyring.(keyring.Rewrapper)
	if !ok {
		t.Skip("not a Rewrapper")
	}
	return rw
}

func rewrap(t *testing.T, rw keyring.Rewrapper, wrapped []keyring.Wrapped) []keyring.Rewrapped {
	t.Helper()
	out, err := rw.Rewrap(t.Context(), wrapped)
	if err != nil {
		t.Fatalf("Rewrap of %d: %v", len(wrapped), err)
	}
	if len(out) != len(wrapped) {
		t.Fatalf("Rewrap of %d returned %d", len(wrapped), len(out))
	}
	return out
}

func testRewrap(t *testing.T, f Fixture) {
	rw := rewrapper(t, f)
	if out := rewrap(t, rw, nil); len(out) != 0 {
		t.Fatal("Rewrap of nothing returned something")
	}
	keys := f.keys(129, payload)
	old := f.wrap(t, keys)
	for i, r := range rewrap(t, rw, old) {
		if r.Err != nil || r.Wrapped != old[i] {
			t.Fatalf("item %d at the newest version was not left as it is: %v", i, r.Err)
		}
	}
	f.Rotate(t)
	moved := make([]keyring.Wrapped, len(old))
	for i, r := range rewrap(t, rw, old) {
		if r.Err != nil {
			t.Fatalf("item %d: %v", i, r.Err)
		}
		if v, err := r.Wrapped.Version(); err != nil || v != 2 {
			t.Fatalf("item %d: version %d, %v; want 2", i, v, err)
		}
		moved[i] = r.Wrapped
	}
	mustOpen(t, f.Keyring, moved, keys)
	mustOpen(t, f.Keyring, old, keys)
}

func testRewrapFailure(t *testing.T, f Fixture) {
	rw := rewrapper(t, f)
	keys := f.keys(3, payload)
	wrapped := f.wrap(t, keys)
	f.Rotate(t)
	wrapped[1] = flip(wrapped[1])
	out := rewrap(t, rw, wrapped)
	if !isOnly(out[1].Err, keyring.ErrCorrupt) || out[1].Wrapped != "" {
		t.Fatalf("bad item: %v; want corrupt", out[1].Err)
	}
	for _, i := range []int{0, 2} {
		if out[i].Err != nil {
			t.Fatalf("item %d beside a bad one: %v", i, out[i].Err)
		}
		mustOpen(t, f.Keyring, []keyring.Wrapped{out[i].Wrapped}, keys[i:i+1])
	}
}

func testConcurrent(t *testing.T, f Fixture) {
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Go(func() {
			for range 5 {
				keys := f.keys(g+1, payload)
				wrapped, err := f.Keyring.Wrap(t.Context(), keys)
				if err != nil {
					errs <- err
					return
				}
				out, err := f.Keyring.Unwrap(t.Context(), wrapped)
				if err != nil {
					errs <- err
					return
				}
				for i, u := range out {
					if u.Err != nil || !u.Key.Equal(keys[i]) {
						errs <- fmt.Errorf("item %d: another key: %w", i, u.Err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}
