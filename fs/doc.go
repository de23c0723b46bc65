// Package fs serves a volume through FUSE. It is the only importer of go-fuse, and stands on package volume, which does
// all that concerns keys, blocks and names; what remains here is what the kernel asks for: an inode table, directory
// descriptors, attributes, and one method a request.
//
// It implements go-fuse's RawFileSystem rather than its node layer, for three reasons. The raw Write carries the flags
// that say when suid and sgid bits must go. The inode table can be small, because it holds what envfs needs and no more.
// And locking follows one rule for the whole tree, stated at table.
//
// Sizes, times and names come from the backing file system by arithmetic and decryption; no request but open and the
// reads and writes that follow needs a file's key.
package fs
