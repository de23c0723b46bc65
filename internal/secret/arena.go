// Package secret keeps key bytes where neither swap space nor a core dump shows
// them, and wipes them when they are given back.
//
// # Place
//
// Everything in envfs that holds a data-encryption key, a key-encryption key or
// the volume key holds it as a [Key]. The package imports nothing of envfs. An
// [Arena] is made once by the command and passed down; there is no package state.
//
// # Memory
//
// An arena maps slabs of 16 KiB outside the Go heap. A slab is locked (mlock) and
// excluded from dumps (MADV_DONTDUMP) as a whole and cut into cells of [MaxSize]
// bytes, one a key, so that 100,000 keys cost 64 bytes each rather than a page
// each. A cell that is free is all zero. Slabs stay mapped for the life of the
// process: a view into a cell never becomes an invalid address.
//
// # What it does not do
//
// Key schedules that the standard library's ciphers expand from a key live on the
// Go heap. [ProtectProcess] keeps those, too, out of dumps, and out of swap where
// the process may lock all of its memory.
package secret

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// MaxSize is the size in bytes of a cell and so of the largest key.
const MaxSize = 64

// slabSize is a multiple of every page size up to 16 KiB, and small enough that a
// limit of 64 KiB of locked memory still locks a thousand keys. On systems with
// larger pages a slab is one page.
const slabSize = 16 << 10

type cell [MaxSize]byte

// Arena hands out keys whose bytes are locked, undumped and wiped. It is safe for
// concurrent use.
type Arena struct {
	log   *slog.Logger
	mlock func([]byte) error

	mu     sync.Mutex // a leaf lock: nothing is called and nothing logged under it
	free   []*cell    // zeroed cells, last in first out; guarded by mu
	stats  Stats      // guarded by mu
	warned bool       // a refused lock was reported; guarded by mu
}

// Stats says what an arena holds.
type Stats struct {
	Cells         int   // keys made and not yet wiped
	LockedBytes   int64 // bytes of slabs that mlock accepted
	UnlockedBytes int64 // bytes of slabs that mlock refused: they may be swapped
}

// NewArena makes an arena. A nil log discards. If the system refuses to lock
// memory (a small RLIMIT_MEMLOCK), the arena warns once and goes on without.
func NewArena(log *slog.Logger) *Arena {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Arena{log: log, mlock: unix.Mlock}
}

// New returns a key of size zero bytes. It panics if size is not 1..MaxSize, which
// is a mistake of the program, and if the system has no memory left.
func (a *Arena) New(size int) *Key {
	if size < 1 || size > MaxSize {
		panic(fmt.Sprintf("secret: key size %d is not within 1..%d", size, MaxSize))
	}
	k := &Key{arena: a, size: size}
	k.cell.Store(a.take())
	return k
}

// Random returns a key of size bytes from the system's random source. It panics
// like New.
func (a *Arena) Random(size int) *Key {
	k := a.New(size)
	rand.Read(k.Bytes()) // never fails: the runtime ends the process instead
	return k
}

// Take moves b into a key: b is copied, then wiped. It panics like New.
func (a *Arena) Take(b []byte) *Key {
	k := a.New(len(b))
	copy(k.Bytes(), b)
	Wipe(b)
	return k
}

// Stats returns the present use of the arena.
func (a *Arena) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

func (a *Arena) take() *cell {
	a.mu.Lock()
	var refused error
	if len(a.free) == 0 {
		refused = a.grow()
	}
	last := len(a.free) - 1
	c := a.free[last]
	a.free = a.free[:last]
	a.stats.Cells++
	tell := refused != nil && !a.warned
	a.warned = a.warned || tell
	a.mu.Unlock()

	if tell {
		a.log.Warn("key memory is not fully protected and may reach swap space; raise RLIMIT_MEMLOCK (ulimit -l)",
			"err", refused)
	}
	return c
}

// give takes a zeroed cell back.
func (a *Arena) give(c *cell) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = append(a.free, c)
	a.stats.Cells--
}

// grow adds the cells of one more slab; mu is held. The error says only that the
// slab could not be protected, the cells are there.
func (a *Arena) grow() error {
	size := max(slabSize, unix.Getpagesize())
	slab, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(fmt.Sprintf("secret: out of memory: mmap: %v", err))
	}
	refused := os.NewSyscallError("madvise", unix.Madvise(slab, unix.MADV_DONTDUMP))
	if err := a.mlock(slab); err != nil {
		a.stats.UnlockedBytes += int64(size)
		refused = os.NewSyscallError("mlock", err) // the likelier one by far
	} else {
		a.stats.LockedBytes += int64(size)
	}
	for at := size - MaxSize; at >= 0; at -= MaxSize {
		a.free = append(a.free, (*cell)(slab[at:]))
	}
	return refused
}
