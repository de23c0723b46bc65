package fusedev

import "encoding/binary"

// What this package knows of linux/fuse.h. All numbers are in the byte order of the machine.
const (
	inHeaderSize  = 40 // struct fuse_in_header: length u32, opcode u32, unique u64, node u64, uid, gid, pid u32, padding
	outHeaderSize = 16 // struct fuse_out_header: length u32, error i32, unique u64

	opForget      = 2
	opRead        = 15
	opRelease     = 18
	opGetxattr    = 22
	opListxattr   = 23
	opReaddir     = 28
	opInterrupt   = 36
	opBatchForget = 42
	opReaddirplus = 44

	// Notices have their kind as the error of an out header whose unique is 0.
	notifyInvalInode     = 2
	invalInodeSize       = 24 // struct fuse_notify_inval_inode_out: node u64, offset i64, length i64
	notifyInvalEntry     = 3
	invalEntrySize       = 16 // struct fuse_notify_inval_entry_out: directory u64, length of the name u32, flags u32; the name and a NUL
	interruptRequestSize = inHeaderSize + 8
)

func opcodeOf(request []byte) uint32 { return binary.NativeEndian.Uint32(request[4:]) }
func uniqueOf(request []byte) uint64 { return binary.NativeEndian.Uint64(request[8:]) }

// unanswered tells whether the kernel expects no answer to a request of this kind.
func unanswered(opcode uint32) bool {
	return opcode == opForget || opcode == opBatchForget || opcode == opInterrupt
}

// wanted returns how many bytes of content the answer to a request may have; it is not checked against anything.
func wanted(request []byte) int {
	at := inHeaderSize // struct fuse_getxattr_in: size u32
	switch opcodeOf(request) {
	case opRead, opReaddir, opReaddirplus:
		at += 16 // struct fuse_read_in: handle u64, offset u64, size u32
	case opGetxattr, opListxattr:
	default:
		return 0
	}
	if len(request) < at+4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(request[at:]))
}

// moved returns how many bytes a request moves in one direction.
func moved(request []byte) int {
	if opcodeOf(request) == opRead {
		return wanted(request)
	}
	return len(request)
}

// interruptRequest returns the INTERRUPT of the request unique, as the kernel would send it.
func interruptRequest(unique uint64) []byte {
	b := make([]byte, interruptRequestSize)
	binary.NativeEndian.PutUint32(b, interruptRequestSize)
	binary.NativeEndian.PutUint32(b[4:], opInterrupt)
	binary.NativeEndian.PutUint64(b[8:], unique|1) // as the kernel numbers them
	binary.NativeEndian.PutUint64(b[inHeaderSize:], unique)
	return b
}

// errorAnswer fills the answer that says that the request unique failed with errno, and returns it.
func errorAnswer(b []byte, unique uint64, errno int32) []byte {
	binary.NativeEndian.PutUint32(b, outHeaderSize)
	binary.NativeEndian.PutUint32(b[4:], uint32(-errno))
	binary.NativeEndian.PutUint64(b[8:], unique)
	return b[:outHeaderSize]
}

// inodeNotice returns the notice that the kernel is to drop length bytes from off on (0: all behind it) of an inode's pages,
// writing dirty ones back first, and its attributes.
func inodeNotice(node uint64, off, length int64) []byte {
	b := notice(notifyInvalInode, invalInodeSize)
	binary.NativeEndian.PutUint64(b[outHeaderSize:], node)
	binary.NativeEndian.PutUint64(b[outHeaderSize+8:], uint64(off))
	binary.NativeEndian.PutUint64(b[outHeaderSize+16:], uint64(length))
	return b
}

// entryNotice returns the notice that the kernel is to look a name up again.
func entryNotice(directory uint64, name string) []byte {
	b := notice(notifyInvalEntry, invalEntrySize+len(name)+1)
	binary.NativeEndian.PutUint64(b[outHeaderSize:], directory)
	binary.NativeEndian.PutUint32(b[outHeaderSize+8:], uint32(len(name)))
	copy(b[outHeaderSize+invalEntrySize:], name)
	return b
}

// notice returns a notice of the given kind with room for size bytes behind its header.
func notice(kind uint32, size int) []byte {
	b := make([]byte, outHeaderSize+size)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], kind)
	return b
}
