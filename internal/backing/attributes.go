package backing

import "golang.org/x/sys/unix"

// Target names a file for the calls that change attributes: by an open descriptor when Name is empty, or as Name in the
// directory FD. A symbolic link is never followed. A descriptor may be one opened with O_PATH.
type Target struct {
	FD   int
	Name string
}

func (t Target) call(op Op, flags int) *Call {
	return &Call{Op: op, FD: t.FD, Name: t.Name, Flags: flags}
}

// path leads to the target for calls that do not follow a final symbolic link (follow = false), or that must follow the
// link that /proc/self/fd shows for a descriptor (follow = true).
func (t Target) path() (path string, follow bool) {
	if t.Name == "" {
		return procPath(t.FD), true
	}
	return entryPath(t.FD, t.Name), false
}

// StatTarget returns the attributes of t.
func (s *Store) StatTarget(t Target, st *unix.Stat_t) error {
	if t.Name == "" {
		return s.Stat(t.FD, st)
	}
	return s.StatAt(t.FD, t.Name, st)
}

// Chmod sets the permission bits.
func (s *Store) Chmod(t Target, mode uint32) error {
	c := t.call(OpSetattr, int(mode))
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, s.chmod(t, mode))
}

func (s *Store) chmod(t Target, mode uint32) error {
	if t.Name == "" {
		return retry(func() error { return unix.Fchmodat(unix.AT_FDCWD, procPath(t.FD), mode, 0) })
	}
	err := retry(func() error { return unix.Fchmodat(t.FD, t.Name, mode, unix.AT_SYMLINK_NOFOLLOW) })
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	return s.chmodByDescriptor(t, mode)
}

// chmodByDescriptor serves kernels before 6.6, whose fchmodat(2) would follow a symbolic link that somebody put in the
// place of the file.
func (s *Store) chmodByDescriptor(t Target, mode uint32) error {
	fd, err := s.Open(t.FD, t.Name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	err = retry(func() error { return unix.Fchmodat(unix.AT_FDCWD, procPath(fd), mode, 0) })
	if cerr := s.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// Chown sets owner and group; -1 keeps one.
func (s *Store) Chown(t Target, uid, gid int) error {
	c := t.call(OpSetattr, 0)
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error {
		if t.Name == "" {
			return unix.Fchownat(t.FD, "", uid, gid, unix.AT_EMPTY_PATH)
		}
		return unix.Fchownat(t.FD, t.Name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

// SetTimes sets access and modification time, to the nanosecond; UTIME_OMIT and UTIME_NOW work as in utimensat(2).
func (s *Store) SetTimes(t Target, atime, mtime unix.Timespec) error {
	c := t.call(OpSetattr, 0)
	if err := s.before(c); err != nil {
		return err
	}
	times := []unix.Timespec{atime, mtime}
	return s.after(c, setTimes(t, times))
}

func setTimes(t Target, times []unix.Timespec) error {
	if t.Name != "" {
		return retry(func() error { return unix.UtimesNanoAt(t.FD, t.Name, times, unix.AT_SYMLINK_NOFOLLOW) })
	}
	err := retry(func() error { return unix.UtimesNanoAt(t.FD, "", times, unix.AT_EMPTY_PATH) })
	if err == unix.EINVAL || err == unix.ENOENT { // a kernel before 5.8, or times that it refuses again
		return retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, procPath(t.FD), times, 0) })
	}
	return err
}

// Access asks whether this process may read, write or execute t (a mask of unix.R_OK, W_OK, X_OK).
func (s *Store) Access(t Target, mask uint32) error {
	if s.Hook != nil { // looked at here, so that nothing is allocated for nobody
		if err := s.before(t.call(OpAccess, int(mask))); err != nil {
			return err
		}
	}
	return retry(func() error {
		if t.Name == "" {
			return unix.Faccessat(unix.AT_FDCWD, procPath(t.FD), mask, unix.AT_EACCESS)
		}
		return unix.Faccessat(t.FD, t.Name, mask, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Getxattr reads an extended attribute into dest and returns its size; with an empty dest only the size.
func (s *Store) Getxattr(t Target, attr string, dest []byte) (n int, err error) {
	if err := s.before(t.call(OpGetxattr, 0)); err != nil {
		return 0, err
	}
	if t.Name != "" {
		if n, ok, err := s.getxattrAt(t.FD, t.Name, attr, dest); ok {
			return n, err
		}
	}
	path, follow := t.path()
	err = retry(func() error {
		if follow {
			n, err = unix.Getxattr(path, attr, dest)
		} else {
			n, err = unix.Lgetxattr(path, attr, dest)
		}
		return err
	})
	return n, err
}

// Listxattr reads the NUL-separated names of the attributes into dest; with an empty dest it returns the size needed.
func (s *Store) Listxattr(t Target, dest []byte) (n int, err error) {
	if err := s.before(t.call(OpGetxattr, 0)); err != nil {
		return 0, err
	}
	path, follow := t.path()
	err = retry(func() error {
		if follow {
			n, err = unix.Listxattr(path, dest)
		} else {
			n, err = unix.Llistxattr(path, dest)
		}
		return err
	})
	return n, err
}

// Setxattr sets an extended attribute; flags are XATTR_CREATE, XATTR_REPLACE or 0.
func (s *Store) Setxattr(t Target, attr string, value []byte, flags int) error {
	c := t.call(OpXattr, flags)
	if err := s.before(c); err != nil {
		return err
	}
	path, follow := t.path()
	return s.after(c, retry(func() error {
		if follow {
			return unix.Setxattr(path, attr, value, flags)
		}
		return unix.Lsetxattr(path, attr, value, flags)
	}))
}

// Removexattr removes an extended attribute.
func (s *Store) Removexattr(t Target, attr string) error {
	c := t.call(OpXattr, 0)
	if err := s.before(c); err != nil {
		return err
	}
	path, follow := t.path()
	return s.after(c, retry(func() error {
		if follow {
			return unix.Removexattr(path, attr)
		}
		return unix.Lremovexattr(path, attr)
	}))
}

// Statx is statx(2) with the given flags (AT_STATX_…) and mask.
func (s *Store) Statx(t Target, flags, mask int, st *unix.Statx_t) error {
	if err := s.before(t.call(OpStat, flags)); err != nil {
		return err
	}
	flags |= unix.AT_SYMLINK_NOFOLLOW
	if t.Name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return retry(func() error { return unix.Statx(t.FD, t.Name, flags, mask, st) })
}
