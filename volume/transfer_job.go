package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// transferJob is the copy of one entry that is no directory.
type transferJob struct {
	t       *transfer
	dir     *transferDir
	srcName string
	name    Name            // at the destination
	st      unix.Stat_t     // of the source, before it was read
	origin  *transferOrigin // of a file with several names

	made  FileKey // identity of the copy
	temp  string  // what the copy is called now, "" while there is none
	sink  openSink
	attrs attributes
	size  int64 // of the plaintext, once it is known
	share progressShare
	lost  []LostRange
	flaws []error // what the copy lacks
	err   error   // why there is no copy
}

func (j *transferJob) src() string { return path.Join(j.dir.srcPath, j.srcName) }
func (j *transferJob) dst() string { return path.Join(j.dir.dstPath, j.name.Stored) }

func (j *transferJob) kind() uint32  { return j.st.Mode & unix.S_IFMT }
func (j *transferJob) regular() bool { return j.kind() == unix.S_IFREG }

// fail notes the first error.
func (j *transferJob) fail(err error) { j.err = cmp.Or(j.err, err) }

// about says at which entry the work ended.
func (j *transferJob) about(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%s: %w", j.src(), err)
}

// copy makes the copy under a temporary name.
func (j *transferJob) copy(ctx context.Context) error {
	if err := j.mayPlace(); err != nil {
		return err
	}
	if j.regular() {
		j.share.of = j.st.Size
		defer func() { j.t.count.done.Add(j.share.rest()) }()
		return j.copyFile(ctx)
	}
	j.attrs = j.t.attributes(backing.Target{FD: j.dir.src, Name: j.srcName}, &j.st)
	temp := j.t.to.temporary()
	store := j.t.to.calls()
	var err error
	if j.kind() == unix.S_IFLNK {
		var target string
		if target, err = j.target(); err == nil {
			err = store.Symlink(target, j.dir.dst, temp)
		}
	} else {
		err = store.Mknod(j.dir.dst, temp, j.kind()|0o600, int(j.st.Rdev))
	}
	if err != nil {
		return err
	}
	j.temp = temp
	return j.identify()
}

// identify notes which inode the copy is.
func (j *transferJob) identify() error {
	var st unix.Stat_t
	err := j.t.to.calls().StatAt(j.dir.dst, j.temp, &st)
	j.made = keyOf(&st)
	return err
}

// mayPlace finds out early that the name is taken, which the rename would say at the end.
func (j *transferJob) mayPlace() error {
	var st unix.Stat_t
	err := j.t.to.calls().StatAt(j.dir.dst, j.name.Stored, &st)
	switch {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return taken(j.dst(), unix.EISDIR)
	case !j.t.Force:
		return taken(j.dst(), unix.EEXIST)
	}
	return nil
}

// target translates the target of a symbolic link.
func (j *transferJob) target() (string, error) {
	stored, err := j.t.from.calls().Readlink(j.dir.src, j.srcName)
	if err != nil {
		return "", err
	}
	plain, err := j.t.from.target(stored)
	if err != nil {
		return "", err
	}
	return j.t.to.target(plain)
}

func (j *transferJob) copyFile(ctx context.Context) (err error) {
	source, err := j.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, source.close()) }()
	temp := j.t.to.temporary()
	store := j.t.to.calls()
	fd, err := store.Open(j.dir.dst, temp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	j.temp = temp
	var sink openSink
	if err = j.identify(); err == nil {
		sink, err = j.t.to.create(ctx, fd)
	}
	if err != nil {
		return errors.Join(err, store.Close(fd))
	}
	j.sink = sink
	if err := j.copyContent(ctx, source); err != nil {
		return err
	}
	return sink.finish()
}

// open opens the file to copy, and reads its attributes.
func (j *transferJob) open(ctx context.Context) (openSource, error) {
	store := j.t.from.calls()
	fd, _, err := openForLook(store, j.dir.src, j.srcName)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = store.Stat(fd, &st)
	if err == nil && (st.Ino != j.st.Ino || st.Dev != j.st.Dev || st.Size != j.st.Size) {
		err = ErrFileChanged
	}
	var source openSource
	if err == nil {
		j.attrs = j.t.attributes(backing.Target{FD: fd}, &j.st)
		source, err = j.t.from.open(ctx, fd, st.Size)
	}
	if err != nil {
		return nil, errors.Join(err, store.Close(fd))
	}
	return source, nil
}

func (j *transferJob) copyContent(ctx context.Context, source openSource) error {
	j.size = source.Size()
	j.share.whole = j.size
	err := copyContent(ctx, source, j.sink, func(n int64) { j.t.count.done.Add(j.share.add(n)) })
	if err != nil {
		return err
	}
	j.lost = lostOf(source)
	return j.unchanged()
}

// unchanged makes sure that nobody has written to the file meanwhile.
func (j *transferJob) unchanged() error {
	var now unix.Stat_t
	if err := j.t.from.calls().StatAt(j.dir.src, j.srcName, &now); err != nil {
		return err
	}
	if now.Ino != j.st.Ino || now.Dev != j.st.Dev || now.Size != j.st.Size || now.Mtim != j.st.Mtim || now.Ctim != j.st.Ctim {
		return ErrFileChanged
	}
	return nil
}

// place gives a copy that is durable its attributes and its name.
func (t *transfer) place(j *transferJob) error {
	var err error
	if j.flaws, err = t.dressEntry(j.dir.dst, j.temp, j.made, &j.attrs); err != nil {
		return err
	}
	if err := t.v.StoreFullName(j.dir.dst, j.name); err != nil {
		return err
	}
	return taken(j.dst(), t.rename(j.dir.dst, j.temp, j.name))
}

// undo removes a copy that has not got its name.
func (t *transfer) undo(j *transferJob) {
	if j.temp == "" {
		return
	}
	err := t.to.calls().Unlink(j.dir.dst, j.temp)
	if backing.IsNotExist(err) {
		err = nil
	}
	j.temp = ""
	if j.sink != nil {
		err = errors.Join(err, j.sink.discard())
	}
	if err != nil {
		t.failed(j.src(), fmt.Errorf("cannot remove an unfinished copy of it: %w", err))
	}
	t.dropUnused(j.dir.dst, j.name)
}

// progressShare turns steps through a file's content into steps of its size on disk, which is what the walk has counted.
type progressShare struct{ of, whole, seen, told int64 }

func (p *progressShare) add(n int64) int64 {
	p.seen += n
	step := int64(float64(p.of)*(float64(p.seen)/float64(max(p.whole, 1)))) - p.told
	p.told += step
	return step
}

func (p *progressShare) rest() int64 { return p.of - p.told }
