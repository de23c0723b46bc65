package crypto

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"
)

func mac(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}

// HKDF as RFC 5869 writes it, for outputs of one and of two blocks.
func TestDeriveKey(t *testing.T) {
	key := volumeKey(9)
	labels := []label{labelHeader, labelNames, labelSymlinks, labelXattrs, labelConfigMAC, labelJournal}
	seen := map[string]label{}
	for _, l := range labels {
		prk := mac(make([]byte, 32), key)
		first := mac(prk, append([]byte(l), 1))
		second := mac(prk, append(append(bytes.Clone(first), l...), 2))
		if got := deriveKey(key, l, 32); !bytes.Equal(got, first) {
			t.Errorf("%s: %x, want %x", l, got, first)
		}
		if got := deriveKey(key, l, 64); !bytes.Equal(got, append(bytes.Clone(first), second...)) {
			t.Errorf("%s: 64 bytes differ", l)
		}
		if other, ok := seen[string(first)]; ok {
			t.Errorf("%s and %s give one key", l, other)
		}
		seen[string(first)] = l
	}
	defer func() {
		if recover() == nil {
			t.Error("a key of 31 bytes is accepted")
		}
	}()
	deriveKey(key[:31], labelNames, 32)
}
