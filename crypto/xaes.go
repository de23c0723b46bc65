package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/envfs/envfs/internal/secret"
)

// PrefixSize is the number of leading nonce bytes that choose the derived key.
const PrefixSize = 12

// XAES is XAES-256-GCM as specified at c2sp.org/XAES-256-GCM: the first 12 of 24
// nonce bytes derive an AES-256-GCM key, the last 12 are that cipher's nonce. It is
// safe for concurrent use.
type XAES struct {
	block cipher.Block
	k1    [aes.BlockSize]byte // CMAC subkey: AES(0) doubled in GF(2^128)
}

// NewXAES makes the cipher for a key of 32 bytes, of which it keeps no view.
func NewXAES(key []byte) (*XAES, error) {
	if len(key) != DEKSize {
		return nil, fmt.Errorf("XAES-256-GCM key of %d bytes, not %d", len(key), DEKSize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	x := &XAES{block: block}
	x.block.Encrypt(x.k1[:], x.k1[:])
	carry := x.k1[0] >> 7
	for i := range x.k1[:len(x.k1)-1] {
		x.k1[i] = x.k1[i]<<1 | x.k1[i+1]>>7
	}
	last := len(x.k1) - 1
	x.k1[last] = x.k1[last]<<1 ^ carry*0x87
	return x, nil
}

// Derive returns AES-256-GCM, with nonces of 12 bytes, under the key that belongs
// to this half of the nonce.
func (x *XAES) Derive(prefix *[PrefixSize]byte) (cipher.AEAD, error) {
	key := x.deriveKey(prefix)
	defer secret.Wipe(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// deriveKey is the counter-mode KDF of NIST SP 800-108 over CMAC, with the single
// block that the specification writes out.
func (x *XAES) deriveKey(prefix *[PrefixSize]byte) [32]byte {
	var key [32]byte
	for i := range 2 {
		m := key[i*aes.BlockSize:][:aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X' // counter (16 bits), label "X", 0
		copy(m[4:], prefix[:])
		for j := range m {
			m[j] ^= x.k1[j]
		}
		x.block.Encrypt(m, m)
	}
	return key
}

// AEAD returns the cipher with its whole nonce of 24 bytes, which may be random for
// each message. Every call derives a key; for many messages with one half of the
// nonce in common, Derive is cheaper.
func (x *XAES) AEAD() cipher.AEAD { return xaesAEAD{x} }

var errOpen = errors.New("message authentication failed")

type xaesAEAD struct{ x *XAES }

func (a xaesAEAD) NonceSize() int { return NonceSize }
func (a xaesAEAD) Overhead() int  { return TagSize }

// Seal panics on a nonce of the wrong size, as the standard library's ciphers do.
func (a xaesAEAD) Seal(dst, nonce, plaintext, additional []byte) []byte {
	derived, err := a.derive(nonce)
	if err != nil {
		panic(err)
	}
	return derived.Seal(dst, nonce[PrefixSize:], plaintext, additional)
}

func (a xaesAEAD) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	derived, err := a.derive(nonce)
	if err != nil {
		return nil, err
	}
	plain, err := derived.Open(dst, nonce[PrefixSize:], ciphertext, additional)
	if err != nil {
		return nil, errOpen
	}
	return plain, nil
}

func (a xaesAEAD) derive(nonce []byte) (cipher.AEAD, error) {
	if len(nonce) != NonceSize {
		panic("crypto: XAES-256-GCM nonce is not 24 bytes")
	}
	return a.x.Derive((*[PrefixSize]byte)(nonce))
}
