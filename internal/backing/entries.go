package backing

import "golang.org/x/sys/unix"

// Mkdir makes a directory.
func (s *Store) Mkdir(dir int, name string, mode uint32) error {
	c := &Call{Op: OpMkdir, FD: dir, Name: name, Flags: int(mode)}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Mkdirat(dir, name, mode) }))
}

// Mknod makes a regular file, fifo, socket or device node.
func (s *Store) Mknod(dir int, name string, mode uint32, dev int) error {
	c := &Call{Op: OpMknod, FD: dir, Name: name, Flags: int(mode)}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Mknodat(dir, name, mode, dev) }))
}

// Symlink makes a symbolic link name → target.
func (s *Store) Symlink(target string, dir int, name string) error {
	c := &Call{Op: OpSymlink, FD: dir, Name: name, Name2: target}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Symlinkat(target, dir, name) }))
}

// Readlink returns the target of a symbolic link, at most 4,096 bytes of it.
func (s *Store) Readlink(dir int, name string) (string, error) {
	if err := s.before(&Call{Op: OpReadlink, FD: dir, Name: name}); err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	for {
		n, err := unix.Readlinkat(dir, name, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}

// Link gives the file (dir, name) a second name.
func (s *Store) Link(dir int, name string, newDir int, newName string) error {
	c := &Call{Op: OpLink, FD: dir, Name: name, FD2: newDir, Name2: newName}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Linkat(dir, name, newDir, newName, 0) }))
}

// LinkFD gives the file behind fd, which may have none yet (O_TMPFILE), a name.
func (s *Store) LinkFD(fd int, newDir int, newName string) error {
	c := &Call{Op: OpLink, FD: fd, FD2: newDir, Name2: newName}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error {
		return unix.Linkat(unix.AT_FDCWD, procPath(fd), newDir, newName, unix.AT_SYMLINK_FOLLOW)
	}))
}

// Unlink removes a name that is no directory.
func (s *Store) Unlink(dir int, name string) error { return s.unlink(dir, name, 0) }

// Rmdir removes an empty directory.
func (s *Store) Rmdir(dir int, name string) error { return s.unlink(dir, name, unix.AT_REMOVEDIR) }

func (s *Store) unlink(dir int, name string, flags int) error {
	c := &Call{Op: OpUnlink, FD: dir, Name: name, Flags: flags}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Unlinkat(dir, name, flags) }))
}

// Rename is renameat2(2); flags are RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT or 0.
func (s *Store) Rename(dir int, name string, newDir int, newName string, flags uint) error {
	c := &Call{Op: OpRename, FD: dir, Name: name, FD2: newDir, Name2: newName, Flags: int(flags)}
	if err := s.before(c); err != nil {
		return err
	}
	return s.after(c, retry(func() error { return unix.Renameat2(dir, name, newDir, newName, flags) }))
}
