package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteTo makes the tree in dir, which must not exist yet. Who looks at inode numbers must use it under the hook returned.
func (i *Image) WriteTo(dir string) (*Inodes, error) {
	w := imageWriter{image: i, made: map[nodeID]string{}, inodes: &Inodes{had: map[uint64]uint64{}}}
	if err := w.entry(dir, root); err != nil {
		return nil, fmt.Errorf("make the disk after a power cut: %w", err)
	}
	return w.inodes, nil
}

type imageWriter struct {
	image  *Image
	made   map[nodeID]string // files, by one of their names
	inodes *Inodes
}

func (w *imageWriter) entry(path string, id nodeID) error {
	if first, ok := w.made[id]; ok {
		return os.Link(first, path)
	}
	n := w.image.log.nodes[id]
	var err error
	switch n.kind {
	case unix.S_IFDIR:
		err = w.directory(path, id)
	case unix.S_IFREG:
		w.made[id] = path
		err = w.file(path, id)
	case unix.S_IFLNK:
		err = os.Symlink(n.target, path)
	default:
		err = unix.Mknod(path, n.kind|0o600, n.rdev)
	}
	if err != nil {
		return err
	}
	return w.attributes(path, id, n.kind)
}

func (w *imageWriter) file(path string, id nodeID) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	w.inodes.had[st.Ino] = w.image.log.nodes[id].ino
	content := w.image.content(id)
	for n, page := range content.pages {
		if _, err := f.WriteAt(page, n*pageSize); err != nil {
			return err
		}
	}
	return f.Truncate(content.size)
}

func (w *imageWriter) directory(path string, id nodeID) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for name, n := range w.image.tree.dirs[id] {
		if err := w.entry(filepath.Join(path, name), n); err != nil {
			return err
		}
	}
	return nil
}

func (w *imageWriter) attributes(path string, id nodeID, kind uint32) error {
	a, ok := w.image.tree.attrs[id]
	if !ok {
		a = w.image.log.nodes[id].attr // made since, and not changed
	}
	errs := []error{os.Lchown(path, int(a.uid), int(a.gid))}
	for name, value := range a.xattrs {
		errs = append(errs, unix.Lsetxattr(path, name, []byte(value), 0))
	}
	if kind != unix.S_IFLNK {
		errs = append(errs, unix.Chmod(path, a.mode))
	}
	return errors.Join(errs...)
}

func (i *Image) content(id nodeID) sparse {
	if data, ok := i.files[id]; ok {
		return data
	}
	return i.log.nodes[id].data
}

// CheckComplete compares the recorded directory, as it is now, with what the record makes of it. A difference is a change that
// went past the Recorder.
func (l *Log) CheckComplete() error {
	nodes, now, _, err := scan(l.dir)
	if err != nil {
		return err
	}
	r := l.Replay()
	r.Forward(l.Len())
	return compare(r.Latest(), root, nodes, now, root, ".")
}

func compare(i *Image, id nodeID, nodes []node, now *tree, seen nodeID, path string) error {
	n, is := i.log.nodes[id], nodes[seen]
	if n.kind != is.kind || n.target != is.target {
		return fmt.Errorf("%s is another kind of file", path)
	}
	if data := i.content(id); n.kind == unix.S_IFREG && !bytes.Equal(data.bytes(), is.data.bytes()) {
		return fmt.Errorf("%s has %d bytes, not these %d", path, is.data.size, data.size)
	}
	var errs []error
	for name, sub := range i.tree.dirs[id] {
		real, ok := now.dirs[seen][name]
		if !ok {
			errs = append(errs, fmt.Errorf("%s is gone", filepath.Join(path, name)))
			continue
		}
		errs = append(errs, compare(i, sub, nodes, now, real, filepath.Join(path, name)))
	}
	for name := range now.dirs[seen] {
		if _, ok := i.tree.dirs[id][name]; !ok {
			errs = append(errs, fmt.Errorf("%s was not recorded", filepath.Join(path, name)))
		}
	}
	return errors.Join(errs...)
}
