package volume

import (
	"errors"
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

// dressEntry gives the entry called name in dir its attributes, if it is the one that was made: in a directory of somebody
// else it could have been exchanged for a file that is not to be given away.
func (t *transfer) dressEntry(dir int, name string, made FileKey, a *attributes) (flaws []error, err error) {
	store := t.to.calls()
	fd, err := store.Open(dir, name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close(fd)) }()
	var st unix.Stat_t
	if err := store.Stat(fd, &st); err != nil {
		return nil, err
	}
	if keyOf(&st) != made {
		return nil, errExchanged
	}
	return t.dress(backing.Target{FD: fd}, a), nil
}

// errExchanged: what was made at the destination is not there any more.
var errExchanged = errors.New("the unfinished copy was exchanged for something else")

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
