package volume

import (
	"context"
	"errors"
	"io"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// ExportOptions say what to decrypt, and where to.
type ExportOptions struct {
	TransferOptions
	// Source is the path of a file or directory below the ciphertext directory; "." is all of it.
	Source string
	// Target is where the plaintext goes: a path of the file system.
	Target string
	// Salvage makes zeros of blocks that cannot be read, in place of failing with the file. Entries whose names cannot be
	// read get their stored ones.
	Salvage bool
	// Lost is told what Salvage has made zeros. It is called by one goroutine. Nil: nobody is told.
	Lost func(LostContent)
}

// LostContent is what is lost of one file.
type LostContent struct {
	Path   string // in the ciphertext directory
	Size   int64  // of the plaintext
	Ranges []LostRange
}

// Export decrypts a file or a tree: contents, names, symbolic links and attributes. What Source names becomes what Target
// names. A directory that is there already is merged with; a file goes into it, under its own name. Holes stay holes and
// hard links one file.
//
// An entry that fails is told to o.Failed and does not stop the others; there is nothing under its name then. The error is
// for the work as a whole, after which there may be files missing, but none that is not whole.
func (v *Volume) Export(ctx context.Context, o ExportOptions) (_ TransferCount, err error) {
	t := &transfer{
		TransferOptions: o.TransferOptions, v: v, lost: o.Lost,
		from: &cipherSource{v: v, salvage: o.Salvage}, to: &plainSink{store: &backing.Store{}},
	}
	dir, name, err := v.openSource(o.Source)
	if err != nil {
		return TransferCount{}, err
	}
	defer func() { err = errors.Join(err, v.store.Close(dir)) }()
	to, err := placeAt(o.Target)
	if err != nil {
		return TransferCount{}, err
	}
	defer func() { err = errors.Join(err, t.to.calls().Close(to.dir)) }()
	inside, err := v.wouldHold(t.to.calls(), to.dir, name)
	if err == nil && inside {
		err = entryError("write", o.Target, ErrInsideVolume)
	}
	if err != nil {
		return TransferCount{}, err
	}
	t.root = to.dir
	return t.run(ctx, func(ctx context.Context) error {
		return t.start(ctx, transferFrom{dir: dir, name: name, path: path.Dir(path.Clean(o.Source))}, to)
	})
}

// openSource opens the directory in which a path below the ciphertext directory ends. Bookkeeping of the volume is none of
// it.
func (v *Volume) openSource(rel string) (dir int, name string, err error) {
	rel = path.Clean(filepath.ToSlash(rel))
	if !filepath.IsLocal(rel) {
		return -1, "", ErrBadPath
	}
	if isOwnName(path.Base(rel)) {
		return -1, "", ErrReservedName
	}
	if dir, name, err = v.openParent(rel); err != nil {
		return -1, "", entryError("open", rel, err)
	}
	return dir, name, nil
}

// wouldHold reports whether plaintext in the directory dir would lie in the ciphertext directory. A directory without
// envfs.json is one only if the whole of it is decrypted: a file of a backup may lie anywhere.
func (v *Volume) wouldHold(store *backing.Store, dir int, source string) (bool, error) {
	var st unix.Stat_t
	err := v.store.StatAt(v.Root(), ConfigName, &st)
	if err == unix.ENOENT && source != "." {
		return false, nil
	}
	top, err := v.rootKey()
	if err != nil {
		return false, err
	}
	return isBelow(store, dir, top)
}

func (v *Volume) rootKey() (FileKey, error) {
	var st unix.Stat_t
	err := v.store.Stat(v.Root(), &st)
	return keyOf(&st), err
}

// Cat writes the plaintext of one regular file, by its path below the ciphertext directory, to out, holes as zeros. It
// writes no byte of a block that cannot be read, nor anything after it, unless salvage is set: then such blocks are zeros,
// and the result says which.
func (v *Volume) Cat(ctx context.Context, rel string, salvage bool, out io.Writer) (_ LostContent, err error) {
	lost := LostContent{Path: rel}
	dir, name, err := v.openSource(rel)
	if err != nil {
		return lost, err
	}
	defer func() { err = errors.Join(err, v.store.Close(dir)) }()
	fd, _, err := openForLook(v.store, dir, name)
	if err == unix.ELOOP {
		err = ErrNotRegular
	}
	if err != nil {
		return lost, entryError("open", rel, err)
	}
	var st unix.Stat_t
	if err = v.store.Stat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNotRegular
	}
	var source openSource
	if err == nil {
		source, err = (&cipherSource{v: v, salvage: salvage}).open(ctx, fd, st.Size)
	}
	if err != nil {
		return lost, errors.Join(entryError("read", rel, err), v.store.Close(fd))
	}
	defer func() { err = errors.Join(err, source.close()) }()
	lost.Size = source.Size()
	err = copyContent(ctx, source, &contentStream{out: out}, func(int64) {})
	lost.Ranges = lostOf(source)
	if err != nil {
		return lost, entryError("read", rel, err)
	}
	return lost, nil
}
