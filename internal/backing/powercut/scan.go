package powercut

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// scan reads a whole directory tree.
func scan(dir string) (nodes []node, t *tree, ids map[uint64]nodeID, err error) {
	s := scanner{t: newTree(), ids: map[uint64]nodeID{}}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if _, err := s.add(fd, "."); err != nil {
		return nil, nil, nil, err
	}
	return s.nodes, s.t, s.ids, s.directory(fd, root)
}

type scanner struct {
	nodes []node
	t     *tree
	ids   map[uint64]nodeID
}

// add looks at the entry name of the directory fd.
func (s *scanner) add(fd int, name string) (nodeID, error) {
	n, ino, err := look(fd, name)
	if err != nil {
		return 0, err
	}
	if id, ok := s.ids[ino]; ok {
		return id, nil
	}
	if n.kind == unix.S_IFREG {
		data, err := os.ReadFile(entryPath(fd, name))
		if err != nil {
			return 0, err
		}
		n.data = newSparse(data)
	}
	id := nodeID(len(s.nodes))
	s.nodes = append(s.nodes, n)
	s.ids[ino] = id
	s.t.attrs[id] = n.attr
	return id, nil
}

func (s *scanner) directory(fd int, dir nodeID) error {
	entries, err := os.ReadDir(entryPath(fd, "."))
	if err != nil {
		return err
	}
	for _, e := range entries {
		id, err := s.add(fd, e.Name())
		if err != nil {
			return err
		}
		s.t.put(dir, e.Name(), id)
		if e.IsDir() {
			if err := s.below(fd, e.Name(), id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scanner) below(fd int, name string, dir nodeID) (err error) {
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(sub)) }()
	return s.directory(sub, dir)
}

// look returns what is known of the entry name of the directory fd, or of fd itself if name is empty, but for the content.
func look(fd int, name string) (n node, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return n, 0, err
	}
	path := entryPath(fd, name)
	n = node{
		ino: st.Ino, kind: st.Mode & unix.S_IFMT, rdev: int(st.Rdev),
		attr: attributes{mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid},
	}
	if n.kind == unix.S_IFLNK {
		if n.target, err = os.Readlink(path); err != nil {
			return n, 0, err
		}
	}
	n.attr.xattrs, err = readXattrs(path, name == "")
	return n, st.Ino, err
}

// readXattrs returns the extended attributes of the file at path, which is a link to it if follow is set.
func readXattrs(path string, follow bool) (map[string]string, error) {
	list, get := unix.Llistxattr, unix.Lgetxattr
	if follow {
		list, get = unix.Listxattr, unix.Getxattr
	}
	buf := make([]byte, 64<<10)
	n, err := list(path, buf)
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	xattrs := map[string]string{}
	for _, name := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := get(path, name, value)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		xattrs[name] = string(value[:n])
	}
	return xattrs, nil
}

func entryPath(fd int, name string) string {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	if name != "" {
		path += "/" + name
	}
	return path
}
