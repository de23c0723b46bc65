package local

import (
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/argon2"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

// Params is the cost of Argon2id (RFC 9106).
type Params struct {
	Time      uint32 `json:"time"`       // passes over the memory
	MemoryKiB uint32 `json:"memory_kib"` // memory in KiB
	Threads   uint8  `json:"threads"`    // lanes
}

// The bounds of what [Open] is willing to spend on a config, which someone may
// have put there: no more than 4 GiB and 64 passes.
const (
	maxTime      = 64
	maxMemoryKiB = 4 << 20
	maxThreads   = 64
	minMemoryNew = 64 << 10 // KiB, for new keyrings
)

// DefaultParams is the second recommended choice of RFC 9106, section 4: 64 MiB
// and three passes in four lanes, about a quarter of a second.
func DefaultParams() Params { return Params{Time: 3, MemoryKiB: minMemoryNew, Threads: 4} }

// MinParams is the least that a new keyring or passphrase may have.
func MinParams() Params { return Params{Time: 1, MemoryKiB: minMemoryNew, Threads: 1} }

// check bounds what parameters may cost, whoever wrote them.
func (p Params) check() error {
	if p.Time < 1 || p.Time > maxTime {
		return fmt.Errorf("argon2id with %d passes; 1 to %d are accepted", p.Time, maxTime)
	}
	if p.Threads < 1 || p.Threads > maxThreads {
		return fmt.Errorf("argon2id with %d lanes; 1 to %d are accepted", p.Threads, maxThreads)
	}
	// Argon2 takes at least 8 KiB a lane, and would silently take more than asked.
	if p.MemoryKiB < 8*uint32(p.Threads) || p.MemoryKiB > maxMemoryKiB {
		return fmt.Errorf("argon2id with %d KiB for %d lanes; %d to %d are accepted", p.MemoryKiB, p.Threads, 8*uint32(p.Threads), maxMemoryKiB)
	}
	return nil
}

// checkStrength is check for new keyrings.
func (p Params) checkStrength() error {
	err := p.check()
	if err == nil && p.MemoryKiB < minMemoryNew {
		err = fmt.Errorf("argon2id with %d KiB of memory; at least %d are required", p.MemoryKiB, minMemoryNew)
	}
	if err != nil {
		return &keyring.Error{Class: keyring.ErrConfig, Op: "passphrase keyring", Err: err}
	}
	return nil
}

// derive turns a passphrase into a key. The working memory of Argon2id is on
// the Go heap and not wiped; it is no longer of use without the passphrase once
// its last pass has overwritten it.
func (p Params) derive(a *secret.Arena, passphrase, salt []byte) *secret.Key {
	return a.Take(argon2.IDKey(passphrase, salt, p.Time, p.MemoryKiB, p.Threads, kekSize))
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
