package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

// rekeyWork is the rekeying of one file.
type rekeyWork struct {
	*rekey
	ctx  context.Context
	file *rekeyFile

	dir    int    // of the file's first name; -1: not open
	name   string // in dir
	before unix.Stat_t
	source *File
	temp   int       // descriptor of the copy; -1: not open
	id     crypto.ID // of the copy
	kek    int       // version that wraps its key
}

// noEvents is for files that no mount shows.
type noEvents struct{}

func (noEvents) Sealed(_, _ unix.Timespec) {}
func (noEvents) Closed()                   {}

// open opens the file with its present key.
func (w *rekeyWork) open() (err error) {
	if w.dir, w.name, err = w.v.openParent(w.file.names[0]); err != nil {
		return err
	}
	fd, _, err := openForLook(w.v.store, w.dir, w.name)
	if err != nil {
		return err
	}
	if err = w.load(fd); err != nil {
		return errors.Join(err, w.v.store.Close(fd))
	}
	return nil
}

func (w *rekeyWork) load(fd int) (err error) {
	if err := w.v.store.Stat(fd, &w.before); err != nil {
		return err
	}
	if w.file.key != (FileKey{Dev: uint64(w.before.Dev), Ino: w.before.Ino}) || w.before.Mode&unix.S_IFMT != unix.S_IFREG {
		return ErrFileChanged
	}
	if isOpenElsewhere(fd) {
		return ErrFileOpen
	}
	w.source, err = w.v.OpenFile(w.ctx, fd, w.before.Size, false, noEvents{})
	return err
}

// isOpenElsewhere reports whether somebody else has the file behind fd open: then there is no write lease on it. File systems
// that have no leases cannot tell.
func isOpenElsewhere(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	if err != nil {
		return err == unix.EAGAIN || err == unix.EBUSY
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err != nil
}

func (w *rekeyWork) tempName() string { return rekeyPrefix + w.source.ID().String() }

// copy makes the copy, whole and durable, under its temporary name, or leaves none.
func (w *rekeyWork) copy() error {
	fd, err := w.create()
	if err != nil {
		return err
	}
	if err := w.fill(fd); err != nil {
		return errors.Join(err, w.removeTemp())
	}
	return nil
}

// fill makes the empty file behind fd, which it takes over, the copy.
func (w *rekeyWork) fill(fd int) (err error) {
	// The File closes its descriptor when it is sealed, before attributes can be set.
	if w.temp, err = w.v.store.Reopen(fd, unix.O_RDWR); err != nil {
		return errors.Join(err, w.v.store.Close(fd))
	}
	key, err := w.v.keyOfCopy(w.ctx)
	if err != nil {
		return errors.Join(err, w.v.store.Close(fd))
	}
	f, err := w.v.NewFile(fd, key, noEvents{})
	if err != nil {
		return errors.Join(err, w.v.store.Close(fd))
	}
	w.id, w.kek = f.ID(), f.KEKVersion()
	if err = copyContent(w.ctx, w.source, f, func(int64) {}); err == nil {
		err = f.Sync(false)
	}
	f.Release()
	if err == nil && f.header.get() != headerSealed {
		err = errors.New("the copy could not be sealed")
	}
	if err != nil {
		return err
	}
	if err := w.copyAttributes(); err != nil {
		return err
	}
	return w.v.store.Sync(w.temp, false)
}

// create makes the temporary file, in the place of one that a killed rekey left.
func (w *rekeyWork) create() (int, error) {
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
	fd, err := w.v.store.Open(w.dir, w.tempName(), flags, 0o600)
	if err != unix.EEXIST {
		return fd, err
	}
	var st unix.Stat_t
	if err := w.v.store.StatAt(w.dir, w.tempName(), &st); err != nil {
		return -1, err
	}
	if st.Nlink > 1 {
		return -1, fmt.Errorf("a rekey of its hard links was interrupted; rekey the directory first: %w", unix.EEXIST)
	}
	if err := w.removeTemp(); err != nil {
		return -1, err
	}
	return w.v.store.Open(w.dir, w.tempName(), flags, 0o600)
}

// removeTemp removes the copy.
func (w *rekeyWork) removeTemp() error {
	err := w.v.store.Unlink(w.dir, w.tempName())
	if backing.IsNotExist(err) {
		return nil
	}
	return err
}

// copyAttributes gives the copy owner, extended attributes, ACLs, mode and times of the file, in an order in which none of
// them undoes another.
func (w *rekeyWork) copyAttributes() error {
	target := backing.Target{FD: w.temp}
	var st unix.Stat_t
	if err := w.v.store.Stat(w.temp, &st); err != nil {
		return err
	}
	if st.Uid != w.before.Uid || st.Gid != w.before.Gid {
		if err := w.v.store.Chown(target, int(w.before.Uid), int(w.before.Gid)); err != nil {
			return fmt.Errorf("owner: %w", err)
		}
	}
	if err := w.copyXattrs(target); err != nil {
		return err
	}
	if err := w.v.store.Chmod(target, w.before.Mode&0o7777); err != nil {
		return fmt.Errorf("mode: %w", err)
	}
	return w.v.store.SetTimes(target, w.before.Atim, w.before.Mtim)
}

// copyXattrs copies extended attributes as they are stored: their values are encrypted under the volume key. Those that the
// copy has of its own, such as an ACL that its directory gives, are removed.
func (w *rekeyWork) copyXattrs(target backing.Target) error {
	source := w.source.target()
	want, err := listXattrs(w.v.store, source)
	if err != nil {
		return err
	}
	has, err := listXattrs(w.v.store, target)
	if err != nil {
		return err
	}
	for name := range has {
		if _, ok := want[name]; !ok {
			if err := w.v.store.Removexattr(target, name); err != nil && err != unix.ENODATA {
				return fmt.Errorf("attribute %s: %w", name, err)
			}
		}
	}
	for name, value := range want {
		if old, ok := has[name]; ok && old == value {
			continue // a security label, perhaps, that we could not set
		}
		if err := w.v.store.Setxattr(target, name, []byte(value), 0); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

// listXattrs returns all extended attributes.
func listXattrs(store *backing.Store, target backing.Target) (map[string]string, error) {
	const most = 64 << 10 // the kernel's limit of the list, and of a value
	buf := make([]byte, most)
	n, err := store.Listxattr(target, buf)
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("attributes: %w", err)
	}
	all := make(map[string]string)
	for _, name := range splitNames(buf[:n]) {
		value := make([]byte, most)
		n, err := store.Getxattr(target, name, value)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		all[name] = string(value[:n])
	}
	return all, nil
}

// close closes what is open. What was written through it was made durable before it got its name, or is gone, so that there is
// nothing to report.
func (w *rekeyWork) close() {
	if w.source != nil {
		w.source.Release()
	}
	for _, fd := range []int{w.temp, w.dir} {
		if fd >= 0 {
			_ = w.v.store.Close(fd)
		}
	}
}
