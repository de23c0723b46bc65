package volume

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// attributes are what an entry has beside its content.
type attributes struct {
	st     unix.Stat_t
	xattrs map[string][]byte // in the clear
	flaws  []error           // what could not be read
}

func (a *attributes) special() bool {
	kind := a.st.Mode & unix.S_IFMT
	return kind != unix.S_IFREG && kind != unix.S_IFDIR
}

// attributes reads what an entry of the source has, whose attributes are st.
func (t *transfer) attributes(target backing.Target, st *unix.Stat_t) attributes {
	a := attributes{st: *st, xattrs: make(map[string][]byte)}
	stored, err := listXattrs(t.from.calls(), target)
	if err != nil {
		a.flaws = append(a.flaws, err)
	}
	for name, value := range stored {
		attr, plain, err := t.from.attribute(name, []byte(value), a.special())
		switch {
		case err != nil:
			a.flaws = append(a.flaws, fmt.Errorf("attribute %s: %w", name, err))
		case attr != "":
			a.xattrs[attr] = plain
		}
	}
	return a
}

// dress gives an entry its attributes, in an order in which none undoes another and no moment is less strict than the end: a
// change of owner takes set-id bits and capabilities away, so it comes first; mode and times are last. It returns what the
// entry lacks now.
func (t *transfer) dress(target backing.Target, a *attributes) (flaws []error) {
	flaws = a.flaws
	store := t.to.calls()
	mode := a.st.Mode & 0o7777
	if err := store.Chown(target, int(a.st.Uid), int(a.st.Gid)); err != nil {
		mode &^= unix.S_ISUID | unix.S_ISGID         // they were meant for another owner
		if err == unix.EPERM || err == unix.EINVAL { // EINVAL: an owner that this user namespace does not know
			t.count.ownersLost.Add(1)
		} else {
			flaws = append(flaws, fmt.Errorf("owner: %w", err))
		}
	}
	flaws = append(flaws, t.setXattrs(target, a)...)
	if a.st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := store.Chmod(target, mode); err != nil {
			flaws = append(flaws, fmt.Errorf("mode: %w", err))
		}
	}
	if err := store.SetTimes(target, a.st.Atim, a.st.Mtim); err != nil {
		flaws = append(flaws, fmt.Errorf("times: %w", err))
	}
	return flaws
}

// setXattrs sets extended attributes and ACLs, and removes ACLs that the directory has handed down.
func (t *transfer) setXattrs(target backing.Target, a *attributes) (flaws []error) {
	store := t.to.calls()
	for _, acl := range []string{aclAccess, aclDefault} {
		if _, wanted := a.xattrs[acl]; wanted || a.special() {
			continue
		}
		if err := store.Removexattr(target, acl); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			flaws = append(flaws, fmt.Errorf("attribute %s: %w", acl, err))
		}
	}
	for attr, value := range a.xattrs {
		stored, sealed, err := t.to.attribute(attr, value, a.special())
		if err == nil {
			err = store.Setxattr(target, stored, sealed, 0)
		}
		if err != nil {
			flaws = append(flaws, fmt.Errorf("attribute %s: %w", attr, err))
		}
	}
	return flaws
}
