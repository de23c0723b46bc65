package volume

// EncodeTarget returns how a symbolic link's target is stored.
func (v *Volume) EncodeTarget(target string) (string, error) { return v.links.Encrypt(target) }

// DecodeTarget returns the target of a symbolic link as applications see it.
func (v *Volume) DecodeTarget(stored string) (string, error) { return v.links.Decrypt(stored) }

// TargetSize returns the length of a target from the length of its stored form, in bytes.
func (v *Volume) TargetSize(stored int64) int64 { return int64(v.links.PlainLen(int(stored))) }

// PlainSize returns the plaintext size of a regular file from the size of its backing file, without opening it. A file cut
// at an odd place has the size of what is whole.
func (v *Volume) PlainSize(cipher int64) int64 {
	n, err := v.layout.PlainSize(cipher)
	if err != nil {
		return max(n, 0)
	}
	return n
}
