package crypto

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"

	"github.com/envfs/envfs/internal/secret"
)

// JournalMACSize is the size of the MAC of a journal record, in bytes.
const JournalMACSize = sha256.Size

// JournalMAC authenticates the records of a volume's journal: HMAC-SHA256 under a key derived from the volume key. It is not
// safe for concurrent use.
type JournalMAC struct {
	key []byte
	mac hash.Hash
}

// NewJournalMAC derives the MAC key; it panics unless the volume key has 32 bytes.
func NewJournalMAC(volumeKey []byte) *JournalMAC {
	key := deriveKey(volumeKey, labelJournal, sha256.Size)
	return &JournalMAC{key: key, mac: hmac.New(sha256.New, key)}
}

// Wipe zeroes the key; the JournalMAC must not be used after.
func (m *JournalMAC) Wipe() { secret.Wipe(m.key) }

// Append appends the MAC of msg to dst and returns the result.
func (m *JournalMAC) Append(dst, msg []byte) []byte {
	m.mac.Reset()
	m.mac.Write(msg)
	return m.mac.Sum(dst)
}

// Verify reports whether mac is that of msg; it compares in constant time.
func (m *JournalMAC) Verify(msg, mac []byte) bool {
	var sum [JournalMACSize]byte
	return hmac.Equal(m.Append(sum[:0], msg), mac)
}
