// Package volume holds the use cases over a ciphertext directory: making a
// volume, opening it under a lock, changing its keyring, translating paths,
// copying trees in and out, and looking at headers without any key. It stands between package fs and
// the commands above it, and crypto and keyring below it. It knows nothing of
// FUSE and nothing of a particular key service: the reference a keyring needs
// to open itself is carried here as an opaque section.
//
// # The file envfs.json
//
// The root of a ciphertext directory holds envfs.json, at most 64 KiB of JSON:
//
//	format              1
//	volume_id           16 random bytes, lower-case hexadecimal
//	slot_size           bytes of one header slot: 512 or 1024
//	names               "encrypted" or "plaintext"
//	keyring             {"type": "local", "local": {…}} or
//	                    {"type": "vault", "vault": {"mount": …, "key": …}}
//	wrapped_volume_key  the key service's own string for volume key(32) ‖ volume ID(16)
//	mac                 HMAC-SHA256 under a key derived from the volume key
//	checksum            SHA-256 without a key
//
// The canonical encoding of such an object is its JSON with the fields in this
// order, without white space outside strings and without escapes that JSON
// does not demand; the local section keeps its own order of fields. mac covers
// the canonical encoding without the fields wrapped_volume_key, mac and
// checksum: who may rewrap, and only he, can replace the wrapped volume key
// without knowing the volume key. checksum covers the canonical encoding
// without checksum; it tells an accident from a wrong passphrase, and no more.
//
// A file whose white space was changed reads the same. Fields that are
// unknown, repeated, misspelt or out of order are refused, but only after the
// format number was looked at, so that a newer format is called by its name.
//
// # Locks
//
// A mount locks the ciphertext directory itself with flock: exclusively to
// write, shared to read. It is not envfs.json that is locked, because a new
// passphrase replaces that file by rename, and a lock held on the replaced
// inode would exclude nobody any more. A directory can be locked on a
// read-only file system too, and needs no further file. On network file
// systems this lock holds between processes of one machine only.
//
// Rewriting envfs.json takes a second, short lock on the inode that currently
// bears the name. So a passphrase can be changed while the volume is mounted.
//
// Volume.Verify needs neither lock: it only reads, and looks twice at what
// seems wrong. A repair needs the first one, exclusively.
//
// LOCK ORDER: the directory before envfs.json. Init takes only the first,
// Volume.UpdateKeyring only the second besides what its Volume holds.
package volume
