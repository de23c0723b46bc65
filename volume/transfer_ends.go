package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
)

// transferSource is the end of a transfer that is read. What it returns is in the clear.
type transferSource interface {
	calls() *backing.Store
	// name returns the name of an entry of the directory dir. Errors: ErrHidden, crypto.ErrForeignName, errNameLost; with
	// the last two the result is what to call it nevertheless.
	name(dir int, stored string) (string, error)
	target(stored string) (string, error)
	// attribute returns an extended attribute, or "" for one that is not to be copied.
	attribute(stored string, value []byte, special bool) (attr string, plain []byte, err error)
	// open takes over the descriptor of a regular file unless it fails.
	open(ctx context.Context, fd int, size int64) (openSource, error)
	// expect says that these files are opened next.
	expect(ctx context.Context, jobs []*transferJob)
}

// openSource is a file to read.
type openSource interface {
	contentSource
	close() error
}

// transferSink is the end that is written. What it is given is in the clear.
type transferSink interface {
	calls() *backing.Store
	name(plain string) (Name, error)
	target(plain string) (string, error)
	attribute(attr string, value []byte, special bool) (stored string, sealed []byte, err error)
	// enter is told of each directory that was there before.
	enter(dir int) error
	// create takes over the descriptor of a new regular file, open for reading and writing, unless it fails.
	create(ctx context.Context, fd int) (openSink, error)
	// temporary returns a name for an entry that is not finished.
	temporary() string
	// settle makes the files durable that were finished, and notes those with which it fails.
	settle(jobs []*transferJob)
}

// openSink is a new file to write.
type openSink interface {
	contentTarget
	// finish closes the file; it is settled later. discard lets go of one that has no name any more, finished or not.
	finish() error
	discard() error
}

// What can be wrong with a name that looks like one of the volume's. What is called so may be whole.
var (
	// errNameLost: of a long name only the hash is left.
	errNameLost    = errors.New("the full name of the file is lost")
	errNameDamaged = errors.New("the name is damaged, or was made with the key of another volume")
)

// selinuxAttr is given by the policy of the machine that a file is on.
const selinuxAttr = "security.selinux"

// plainSource reads files that are not encrypted. v knows which attributes a volume can hold.
type plainSource struct {
	v     *Volume
	store *backing.Store
}

func (s *plainSource) calls() *backing.Store { return s.store }

func (s *plainSource) name(_ int, stored string) (string, error) { return stored, nil }

func (s *plainSource) target(stored string) (string, error) { return stored, nil }

func (s *plainSource) attribute(stored string, value []byte, special bool) (string, []byte, error) {
	_, _, err := s.v.AttrName(stored, special)
	if err == unix.EOPNOTSUPP || stored == selinuxAttr {
		return "", nil, nil
	}
	return stored, value, err
}

func (s *plainSource) open(_ context.Context, fd int, size int64) (openSource, error) {
	return &plainReader{plainFile{store: s.store, fd: fd, size: size}}, nil
}

func (s *plainSource) expect(context.Context, []*transferJob) {}

// plainReader is a file that must not change while it is read.
type plainReader struct{ plainFile }

func (r *plainReader) close() error { return r.store.Close(r.fd) }

func (r *plainReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.plainFile.ReadAt(p, off)
	if err == nil && n < len(p) {
		return n, fmt.Errorf("%w: it became shorter", ErrFileChanged)
	}
	return n, err
}

// plainSink writes files that are not encrypted.
type plainSink struct{ store *backing.Store }

func (s *plainSink) calls() *backing.Store { return s.store }

func (s *plainSink) name(plain string) (Name, error) { return Name{Stored: plain}, nil }

func (s *plainSink) target(plain string) (string, error) { return plain, nil }

func (s *plainSink) attribute(attr string, value []byte, _ bool) (string, []byte, error) {
	return attr, value, nil
}

// enter leaves what a killed transfer may have left: another one may be at work.
func (s *plainSink) enter(int) error { return nil }

func (s *plainSink) create(_ context.Context, fd int) (openSink, error) {
	return &plainWriter{plainFile: plainFile{store: s.store, fd: fd}}, nil
}

func (s *plainSink) temporary() string { return ".envfs-" + randomName() + ".tmp" }

// settle syncs each of a few files, and else their file systems.
func (s *plainSink) settle(jobs []*transferJob) {
	if len(jobs) <= sealEach {
		for _, j := range jobs {
			j.fail(s.syncFile(j.dir.dst, j.temp))
		}
		return
	}
	synced := map[uint64]error{}
	for _, j := range jobs {
		err, done := synced[j.dir.made.Dev]
		if !done {
			err = s.store.SyncFS(j.dir.dst)
			synced[j.dir.made.Dev] = err
		}
		j.fail(err)
	}
}

func (s *plainSink) syncFile(dir int, name string) error {
	fd, err := s.store.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(s.store.Sync(fd, false), s.store.Close(fd))
}

type plainWriter struct {
	plainFile
	finished bool
}

func (w *plainWriter) finish() error {
	w.finished = true
	return w.store.Close(w.fd)
}

func (w *plainWriter) discard() error {
	if w.finished {
		return nil
	}
	return w.finish()
}

// cipherSource reads the files of a volume.
type cipherSource struct {
	v       *Volume
	salvage bool
}

func (s *cipherSource) calls() *backing.Store { return s.v.store }

func (s *cipherSource) name(dir int, stored string) (string, error) {
	name, err := s.v.DecodeName(dir, stored)
	switch {
	case errors.Is(err, crypto.ErrForeignName):
		return stored, err
	case err == nil && s.v.names != nil && name == stored && crypto.IsLong(stored):
		return stored, errNameLost
	}
	return name, err
}

func (s *cipherSource) target(stored string) (string, error) { return s.v.DecodeTarget(stored) }

func (s *cipherSource) attribute(stored string, value []byte, special bool) (string, []byte, error) {
	attr := s.v.AttrShown(stored)
	if attr == "" || attr == selinuxAttr {
		return "", nil, nil
	}
	back, encrypted, err := s.v.AttrName(attr, special)
	if err != nil || back != stored {
		return "", nil, nil // somebody else set it: a mount would look for it elsewhere
	}
	if encrypted {
		value, err = s.v.OpenAttr(attr, value)
	}
	return attr, value, err
}

func (s *cipherSource) open(ctx context.Context, fd int, size int64) (openSource, error) {
	if s.salvage {
		f, err := s.v.openSalvaged(ctx, fd, size)
		if err != nil {
			return nil, err
		}
		return cipherReader{f, f.File}, nil
	}
	f, err := s.v.OpenFile(ctx, fd, size, false, noEvents{})
	return cipherReader{f, f}, err
}

// expect asks for all keys at once. Whoever opens a file is told what is wrong with it; here nobody is.
func (s *cipherSource) expect(ctx context.Context, jobs []*transferJob) {
	var keys []keyring.Wrapped
	for _, j := range jobs {
		if !j.regular() || j.st.Size == 0 {
			continue
		}
		if fd, _, err := openForLook(s.v.store, j.dir.src, j.srcName); err == nil {
			keys = append(keys, s.v.wrappedIn(fd))
			_ = s.v.store.Close(fd) // only read
		}
	}
	var asking sync.WaitGroup
	for _, key := range keys {
		if key == "" {
			continue
		}
		asking.Go(func() {
			if lease, err := s.v.cache.Acquire(ctx, key); err == nil {
				lease.Release()
			}
		})
	}
	asking.Wait()
}

// cipherReader is a File, or a salvagedFile around it.
type cipherReader struct {
	contentSource
	file *File
}

func (r cipherReader) close() error {
	r.file.Release()
	return nil
}

// cipherSink writes files of a volume.
type cipherSink struct{ v *Volume }

func (s *cipherSink) calls() *backing.Store { return s.v.store }

func (s *cipherSink) name(plain string) (Name, error) { return s.v.EncodeName(plain) }

func (s *cipherSink) target(plain string) (string, error) { return s.v.EncodeTarget(plain) }

func (s *cipherSink) attribute(attr string, value []byte, special bool) (string, []byte, error) {
	stored, encrypted, err := s.v.AttrName(attr, special)
	if encrypted {
		value = s.v.SealAttr(attr, value)
	}
	return stored, value, err
}

// enter removes what a killed transfer has left, since nobody else is at work in the volume. A temporary file with further
// names is the business of rekeying.
func (s *cipherSink) enter(dir int) error {
	fd, err := s.v.store.Open(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	entries, err := s.v.readEntries(fd)
	for _, e := range entries {
		var st unix.Stat_t
		if !strings.HasPrefix(e.name, rekeyPrefix) || s.v.store.StatAt(fd, e.name, &st) != nil || st.Nlink > 1 {
			continue
		}
		err = errors.Join(err, s.v.store.Unlink(fd, e.name))
	}
	return errors.Join(err, s.v.store.Close(fd))
}

func (s *cipherSink) create(ctx context.Context, fd int) (openSink, error) {
	key, err := s.v.keyOfCopy(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.v.NewFile(fd, key, noEvents{})
	if err != nil {
		return nil, err
	}
	return &cipherWriter{File: f}, nil
}

// temporary returns a name of the kind that rekeying uses, and clears away if a crash has left it.
func (s *cipherSink) temporary() string { return rekeyPrefix + randomName() }

// settle seals the files, which syncs them first.
func (s *cipherSink) settle(jobs []*transferJob) {
	err := s.v.SealAll()
	for _, j := range jobs {
		j.fail(err)
		if w, ok := j.sink.(*cipherWriter); ok && w.header.get() == headerUnsealed {
			j.fail(errors.New("the copy could not be sealed"))
		}
	}
}

type cipherWriter struct {
	*File
	finished bool
}

func (w *cipherWriter) finish() error {
	w.finished = true
	w.Release()
	return nil
}

func (w *cipherWriter) discard() error {
	w.Unlinked()
	if w.finished {
		return nil
	}
	return w.finish()
}

func randomName() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// isPlainName reports whether a name can be that of an entry in a directory, wherever it comes from.
func isPlainName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
