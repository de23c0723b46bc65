// Command envfs mounts directories of encrypted files: the ciphertext lies in
// one directory, and a FUSE mount of it shows the plaintext in another.
//
// It is the only part of envfs that prints, asks or exits. Each subcommand
// stands in a file of its own and turns its arguments into calls of packages
// volume, fs and keyring; what these return as typed errors becomes an exit
// code in exit.go and a hint in hints.go.
//
// Rules of its messages: lower case, one line, with the path they are about;
// errors start with "envfs: " and may be followed by a line "hint: …"; what a
// program may want to read goes to standard output, everything else to
// standard error.
package main

import "os"

func main() {
	os.Exit(newApp().run(os.Args))
}
