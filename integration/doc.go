// Package integration drives the built program as its users do: real FUSE mounts, a real Vault server, and the programs
// that people run on a file system. It holds tests only.
//
// It stands above all other packages, imports none of the product's, and knows envfs by its command line, its exit codes,
// its messages and the bytes it leaves on the disk (doc/format.md). TestMain builds the program once and puts it into PATH.
//
// Environment:
//
//	ENVFS_RACE=1         build the program with the race detector; a race that it reports fails the test
//	ENVFS_SOAK=N         long forms of the tests, as make soak runs them
//	ENVFS_TEST_STRICT=1  a program that is not installed fails the tests that drive it, instead of skipping them
//	ENVFS_TEST_VAULT     see package vaulttest
//
// testdata/format1 is a volume as the first release wrote it. Every later one must read it: it is made again
// (go test ./integration -run TestFormat1 -update) only if it turns out to be wrong in itself.
package integration
