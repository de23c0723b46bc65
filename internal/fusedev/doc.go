// Package fusedev carries requests between the kernel and a FUSE server: it mounts, reads requests from /dev/fuse, hands them
// to a handler, and writes the answers. What a request means is the handler's business (package fs
// decodes them with go-fuse); this package knows of the protocol (linux/fuse.h) only the header of a request, INTERRUPT, and the
// notice that the kernel's cache of an inode is out of date.
//
// It is here, in place of the loop of a library, because most of what a small request costs is the way to the process and back:
//
//   - A request is carried out by the goroutine that has read it, which then reads the next. Nothing is handed to another
//     goroutine, of which each costs a wake-up, until a handler proves to take long (see Server.take).
//   - After an answer the reader asks again for a while before it goes to sleep, because a program that works on files sends its
//     next request at once, and waking a sleeping thread takes longer than most requests (see patience).
package fusedev
