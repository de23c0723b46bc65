package crypto

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// label is the "info" input of HKDF-SHA256. This is the one table of them: no two
// uses share a key, and a new use gets a new label.
type label string

const (
	labelHeader    label = "envfs v1 header"     // from a DEK: HMAC of the sealed part
	labelNames     label = "envfs v1 names"      // from the volume key: AES-256-SIV of names
	labelSymlinks  label = "envfs v1 symlinks"   // from the volume key: XAES-256-GCM of targets
	labelXattrs    label = "envfs v1 xattrs"     // from the volume key: XAES-256-GCM of values
	labelConfigMAC label = "envfs v1 config mac" // from the volume key: HMAC of envfs.json
	labelJournal   label = "envfs v1 journal"    // from the volume key: HMAC of the journal's records
)

// deriveKey is HKDF-SHA256 without salt. The input is always a whole key: another
// size, or a length HKDF cannot give, is a mistake of the program.
func deriveKey(key []byte, l label, size int) []byte {
	if len(key) != DEKSize {
		panic(fmt.Sprintf("crypto: key of %d bytes, not %d", len(key), DEKSize))
	}
	derived, err := hkdf.Key(sha256.New, key, nil, string(l), size)
	if err != nil {
		panic(fmt.Sprintf("crypto: HKDF: %v", err))
	}
	return derived
}

// checkVolumeKey refuses a volume key of the wrong size.
func checkVolumeKey(key []byte) error {
	if len(key) != DEKSize {
		return fmt.Errorf("volume key of %d bytes, not %d", len(key), DEKSize)
	}
	return nil
}
