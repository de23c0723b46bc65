package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func mustPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", name)
		}
	}()
	f()
}

func TestNew(t *testing.T) {
	a := NewArena(nil)
	for _, size := range []int{1, 16, 32, 48, 63, MaxSize} {
		k := a.New(size)
		if k.Len() != size || !bytes.Equal(k.Bytes(), make([]byte, size)) || cap(k.Bytes()) != size {
			t.Errorf("New(%d): %d bytes, capacity %d", size, len(k.Bytes()), cap(k.Bytes()))
		}
		k.Wipe()
	}
	for _, size := range []int{-1, 0, MaxSize + 1} {
		mustPanic(t, fmt.Sprintf("New(%d)", size), func() { a.New(size) })
	}
	mustPanic(t, "Take(nil)", func() { a.Take(nil) })
	if s := a.Stats(); s.Cells != 0 {
		t.Errorf("%d cells are in use, want 0", s.Cells)
	}
}

func TestCellsDoNotOverlap(t *testing.T) {
	a := NewArena(nil)
	var keys []*Key
	for i := range 3 * slabSize / MaxSize {
		k := a.New(MaxSize)
		for j := range k.Bytes() {
			k.Bytes()[j] = byte(i)
		}
		keys = append(keys, k)
	}
	for i, k := range keys {
		if !bytes.Equal(k.Bytes(), bytes.Repeat([]byte{byte(i)}, MaxSize)) {
			t.Fatalf("key %d was overwritten by another", i)
		}
	}
}

func TestRandom(t *testing.T) {
	a := NewArena(nil)
	x, y := a.Random(32), a.Random(32)
	if x.Equal(y) || bytes.Equal(x.Bytes(), make([]byte, 32)) {
		t.Error("two random keys are equal or zero")
	}
}

func TestTakeWipesItsSource(t *testing.T) {
	source := []byte("a passphrase")
	k := NewArena(nil).Take(source)
	if string(k.Bytes()) != "a passphrase" {
		t.Errorf("the key is %q", k.Bytes())
	}
	if !bytes.Equal(source, make([]byte, len(source))) {
		t.Errorf("the source is still %q", source)
	}
}

func TestEqualAndClone(t *testing.T) {
	a := NewArena(nil)
	k := a.Random(32)
	c := k.Clone()
	if !k.Equal(c) || !k.Equal(k) {
		t.Error("a clone is not equal")
	}
	c.Bytes()[31] ^= 1
	if k.Equal(c) {
		t.Error("a changed clone is equal: it shares its cell, or Equal is wrong")
	}
	if k.Equal(a.New(31)) || a.New(32).Equal(a.New(31)) {
		t.Error("keys of different sizes are equal")
	}
	k.Wipe()
	if len(c.Bytes()) != 32 {
		t.Error("the clone went with its original")
	}
}

func TestWipe(t *testing.T) {
	a := NewArena(nil)
	k := a.Random(MaxSize)
	view := k.Bytes()
	k.Wipe()
	if !bytes.Equal(view, make([]byte, MaxSize)) {
		t.Error("the cell is not zero")
	}
	mustPanic(t, "Bytes after Wipe", func() { k.Bytes() })
	mustPanic(t, "Clone after Wipe", func() { k.Clone() })
	mustPanic(t, "Equal after Wipe", func() { k.Equal(a.New(MaxSize)) })
	if k.Len() != MaxSize {
		t.Errorf("Len after Wipe is %d", k.Len())
	}

	// A second Wipe must not free the cell for two keys at once.
	k.Wipe()
	x, y := a.New(32), a.New(32)
	x.Bytes()[0] = 1
	if y.Bytes()[0] != 0 {
		t.Error("two keys share a cell after a double Wipe")
	}
	k.Wipe()
	if x.Bytes()[0] != 1 {
		t.Error("a late Wipe hit another key")
	}
	var none *Key
	none.Wipe()

	b := []byte("text")
	Wipe(b)
	Wipe(nil)
	if !bytes.Equal(b, make([]byte, 4)) {
		t.Errorf("Wipe leaves %q", b)
	}
}

func TestWipedCellsAreZeroAndReused(t *testing.T) {
	a := NewArena(nil)
	for range 3 {
		var keys []*Key
		for range 1000 {
			keys = append(keys, a.Random(MaxSize))
		}
		for _, k := range keys {
			k.Wipe()
		}
	}
	for _, c := range a.free {
		if *c != (cell{}) {
			t.Fatal("a free cell is not zero")
		}
	}
	s := a.Stats()
	if total, want := s.LockedBytes+s.UnlockedBytes, int64((1000*MaxSize+slabSize-1)/slabSize*slabSize); total > want {
		t.Errorf("%d bytes of slabs for 1000 keys at a time, want at most %d", total, want)
	}
	if s.Cells != 0 {
		t.Errorf("%d cells are in use, want 0", s.Cells)
	}
}

func TestKeysConcurrently(t *testing.T) {
	a := NewArena(nil)
	shared := a.Random(32)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 500 {
				k := a.New(32)
				for i := range k.Bytes() {
					k.Bytes()[i] = byte(g + 1)
				}
				c := k.Clone()
				if !c.Equal(k) || !bytes.Equal(c.Bytes(), bytes.Repeat([]byte{byte(g + 1)}, 32)) {
					t.Error("another goroutine wrote into this key")
				}
				if shared.Equal(k) {
					t.Error("the shared key changed")
				}
				k.Wipe()
				c.Wipe()
			}
		})
	}
	var wipes sync.WaitGroup
	doomed := a.Random(32)
	for range 8 {
		wipes.Go(doomed.Wipe)
	}
	wg.Wait()
	wipes.Wait()
	if got := a.Stats().Cells; got != 1 {
		t.Errorf("%d cells are in use, want the shared one only", got)
	}
}

func TestKeysArePrintedRedacted(t *testing.T) {
	k := NewArena(nil).Take([]byte("SECRETSECRETSECRETSECRETSECRETSE"))
	type holder struct {
		Key *Key
		key *Key
	}
	h := holder{k, k}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%e", "%t", "%10.3s", "%08x"} {
		got := fmt.Sprintf(verb, k)
		if got != "[redacted]" {
			t.Errorf("%s prints %q", verb, got)
		}
		fmt.Fprintf(&out, verb+verb+"\n", h, &h)
	}
	fmt.Fprintln(&out, k, h, k.String(), k.GoString(), fmt.Errorf("wrap: %v", k))
	encoded, err := json.Marshal(map[string]any{"k": k, "h": h})
	if err != nil || string(encoded) != `{"h":{"Key":"[redacted]"},"k":"[redacted]"}` {
		t.Errorf("JSON: %s, %v", encoded, err)
	}
	text, err := k.MarshalText()
	if err != nil {
		t.Error(err)
	}
	out.Write(text)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(handler).Info("message", "key", k, "holder", h, slog.Group("group", "key", k))
	}
	for _, form := range []string{"SECRET", "534543524554", "83 69 67 82", "U0VDUkVU"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the key shows as %q in\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), "key=[redacted]") {
		t.Errorf("slog shows no [redacted] in\n%s", out.String())
	}
}
