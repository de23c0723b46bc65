package fs

import "sync/atomic"

// absentAttrs remembers which of the attributes that are asked for most a file does not have: ls asks for two of them for each
// file, and the kernel, which forgets the answer, for a third before it writes. Attributes come only through the mount, so
// what was absent stays so until one is set. The lower half holds a bit for each name, the upper half counts changes.
type absentAttrs struct{ state atomic.Uint32 }

const absentBits = 1<<16 - 1

// absentBit is the bit of an attribute whose absence is remembered, or 0.
func absentBit(attr string) uint32 {
	switch attr {
	case selinuxAttr:
		return 1
	case "system.posix_acl_access":
		return 2
	case aclDefault:
		return 4
	case capabilityAttr:
		return 8
	}
	return 0
}

// look returns what is remembered, for note, and whether attr is known to be absent.
func (a *absentAttrs) look(attr string) (seen uint32, absent bool) {
	seen = a.state.Load()
	return seen, seen&absentBit(attr) != 0
}

// note records that attr was not there when it was asked for after look, unless anything has happened since.
func (a *absentAttrs) note(seen uint32, attr string) {
	a.state.CompareAndSwap(seen, seen|absentBit(attr))
}

// changed is called after an attribute was set, or may have been.
func (a *absentAttrs) changed() {
	for {
		seen := a.state.Load()
		if a.state.CompareAndSwap(seen, seen&^absentBits+absentBits+1) {
			return
		}
	}
}
