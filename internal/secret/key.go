package secret

import (
	"crypto/subtle"
	"runtime"
	"sync/atomic"
)

// Key is a secret of fixed size in its arena's memory. Whoever is given a Key
// wipes it, unless the giver says otherwise; a Key that is dropped without Wipe
// keeps its cell for the life of the process. Printing one in any way shows
// "[redacted]".
//
// Reading from many goroutines is safe. Wipe must not run while a view from Bytes
// is in use, because the cell may serve another key right after.
type Key struct {
	arena *Arena
	cell  atomic.Pointer[cell] // nil once wiped
	size  int
}

// Bytes returns a view of the key, valid until Wipe: write through it to fill the
// key, do not keep it. It panics after Wipe.
func (k *Key) Bytes() []byte {
	c := k.cell.Load()
	if c == nil {
		panic("secret: use of a wiped key")
	}
	return c[:k.size:k.size]
}

// Len returns the size in bytes; it stays known after Wipe.
func (k *Key) Len() int { return k.size }

// Equal reports whether both keys hold the same bytes, in time that depends on
// their sizes only. It panics after Wipe.
func (k *Key) Equal(o *Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), o.Bytes()) == 1
}

// Clone returns a copy with a cell of its own. It panics after Wipe.
func (k *Key) Clone() *Key {
	from := k.Bytes()
	c := k.arena.New(k.size)
	copy(c.Bytes(), from)
	return c
}

// Wipe zeroes the key and gives its cell back. A second call, and a call on nil,
// does nothing.
func (k *Key) Wipe() {
	if k == nil {
		return
	}
	c := k.cell.Swap(nil)
	if c == nil {
		return
	}
	Wipe(c[:])
	k.arena.give(c)
}

// Wipe zeroes b.
//
//go:noinline
func Wipe(b []byte) {
	// Not inlined, and b kept alive after: the compiler cannot know the store dead.
	clear(b)
	runtime.KeepAlive(b)
}
