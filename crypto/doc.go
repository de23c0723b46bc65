// Package crypto is the byte format of envfs: the codec of file headers, the
// authenticated blocks of file content, the encryption of names, symlink targets
// and attribute values, and the arithmetic between sizes and offsets in the clear
// and on disk.
//
// # Place
//
// It is pure: no files, no FUSE, no key service, no logging, no state beyond the
// ciphers it returns. Of envfs it imports internal/secret only. Package volume
// decides when a header is written and what a directory holds; package fs serves
// the result. doc/format.md is the normative description, and its worked examples
// are checked by this package's tests.
//
// # File
//
//	offset            bytes
//	0                 slot size   header slot 0 (see [Slot])
//	slot size         slot size   header slot 1
//	2 × slot size     4136        block 0: nonce 24 ‖ ciphertext 4096 ‖ tag 16
//	…                 41..4136    the last block, which may be shorter
//
// # Keys
//
// A DEK encrypts the blocks of one file, as the key of XAES-256-GCM ([XAES],
// [ContentCipher]), and through HKDF-SHA256 authenticates its header ([HeaderMAC]).
// The volume key serves names, targets, values and the configuration through HKDF
// with a label each, and never wraps a DEK. Neither is kept: the ciphers hold what
// they expanded from it. Nothing decoded here is trusted before it is
// authenticated, and no length found in a file chooses an allocation.
package crypto
