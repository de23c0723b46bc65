package integration

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const paxXattr = "SCHILY.xattr." // before the name of an attribute in a PAX record

func setXattr(path, name, value string) error { return unix.Lsetxattr(path, name, []byte(value), 0) }

// pack puts a tree into a tar file: sorted, without owners, with links and user attributes.
func pack(t *testing.T, root, file string) {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return packEntry(w, root, path, first)
	})
	if err := errors.Join(err, w.Close(), os.WriteFile(file, out.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func packEntry(w *tar.Writer, root, path string, first map[uint64]string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: rel, Mode: int64(st.Mode & 0o7777), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX, PAXRecords: map[string]string{}}
	if err := packXattrs(h, path); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = os.Readlink(path)
	case unix.S_IFREG:
		if h.Linkname = first[st.Ino]; h.Linkname != "" {
			h.Typeflag = tar.TypeLink
			break
		}
		first[st.Ino] = rel
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	default:
		return errors.New("cannot pack " + path)
	}
	if err := errors.Join(err, w.WriteHeader(h)); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	content, err := os.ReadFile(path)
	_, writeErr := w.Write(content)
	return errors.Join(err, writeErr)
}

func packXattrs(h *tar.Header, path string) error {
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return err
		}
		h.PAXRecords[paxXattr+name] = string(value[:n])
	}
	return nil
}

// unpack makes the tree of a tar file again, with the owner of the test, and with holes where there are zeros.
func unpack(t *testing.T, file, root string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read
	r := tar.NewReader(f)
	var headers []*tar.Header
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = unpackEntry(root, h, r)
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			lack(t, "the file system of the temporary directory has no extended attributes")
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		headers = append(headers, h)
	}
	for i := len(headers) - 1; i >= 0; i-- { // of directories last, when they do not change any more
		mtime := unix.NsecToTimespec(headers[i].ModTime.UnixNano())
		times := []unix.Timespec{mtime, mtime}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, headers[i].Name), times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
}

func unpackEntry(root string, h *tar.Header, content io.Reader) (err error) {
	path := filepath.Join(root, h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		err = os.MkdirAll(path, 0o700)
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		return os.Link(filepath.Join(root, h.Linkname), path)
	case tar.TypeReg:
		err = unpackFile(path, content)
	}
	if err != nil {
		return err
	}
	for record, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(record, paxXattr); ok {
			err = errors.Join(err, setXattr(path, name, value))
		}
	}
	return errors.Join(err, os.Chmod(path, fs.FileMode(h.Mode)))
}

func unpackFile(path string, content io.Reader) error {
	data, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = f.Truncate(int64(len(data)))
	const page = 4096
	for at := 0; at < len(data) && err == nil; at += page {
		if piece := data[at:min(at+page, len(data))]; !bytes.Equal(piece, make([]byte, len(piece))) {
			_, err = f.WriteAt(piece, int64(at))
		}
	}
	return errors.Join(err, f.Close())
}
