package volume

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"golang.org/x/sys/unix"
)

// fileRig is an open volume whose files are tested without FUSE.
type fileRig struct {
	t   testing.TB
	dir string
	kr  keyring.Keyring
	vol *Volume

	safety      CrashSafety
	journalSize int64
	readOnly    bool
	log         *slog.Logger
}

func newFileRig(t testing.TB) *fileRig {
	t.Helper()
	r := &fileRig{t: t, journalSize: 256 << 10, dir: filepath.Join(t.TempDir(), "cipher"), kr: keyringtest.NewFake(secret.NewArena(nil))}
	_, err := Init(t.Context(), r.dir, InitOptions{
		Keyring: r.kr, Arena: secret.NewArena(nil),
		Ref: KeyringRef{Type: "vault", Vault: &VaultRef{Mount: "transit", Key: "test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.open(&backing.Store{})
	t.Cleanup(func() { r.close() })
	return r
}

func (r *fileRig) open(store *backing.Store) {
	r.t.Helper()
	if err := r.tryOpen(store); err != nil {
		r.t.Fatal(err)
	}
}

func (r *fileRig) tryOpen(store *backing.Store) (err error) {
	r.t.Helper()
	cfg, err := ReadConfig(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.vol, err = Open(context.Background(), r.dir, cfg, r.kr, OpenOptions{
		Arena: secret.NewArena(nil), Store: store, SealDelay: time.Hour, CrashSafety: r.safety, journalSize: r.journalSize,
		ReadOnly: r.readOnly, Log: r.log,
	})
	return err
}

func (r *fileRig) close() {
	r.t.Helper()
	if r.vol == nil {
		return
	}
	if err := r.vol.Close(); err != nil {
		r.t.Error(err)
	}
	r.vol = nil
}

// reopen closes the volume, which seals every file, and opens it again.
func (r *fileRig) reopen(store *backing.Store) {
	r.t.Helper()
	r.close()
	r.open(store)
}

// reopenWith does the same with options of the caller.
func (r *fileRig) reopenWith(o OpenOptions) {
	r.t.Helper()
	r.close()
	cfg, err := ReadConfig(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.vol, err = Open(r.t.Context(), r.dir, cfg, r.kr, o); err != nil {
		r.t.Fatal(err)
	}
}

// fileLog records what a File reports.
type fileLog struct {
	mu     sync.Mutex
	sealed int
	closed bool
}

func (l *fileLog) Sealed(_, _ unix.Timespec) { l.mu.Lock(); l.sealed++; l.mu.Unlock() }
func (l *fileLog) Closed()                   { l.mu.Lock(); l.closed = true; l.mu.Unlock() }

func (r *fileRig) path(name string) string { return filepath.Join(r.dir, name) }

// create makes a file; its name is not encrypted, which files do not care about.
func (r *fileRig) create(name string) *File {
	r.t.Helper()
	fd, err := r.vol.store.Open(r.vol.Root(), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := r.vol.NewKey(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := r.vol.NewFile(fd, key, &fileLog{})
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

func (r *fileRig) tryLoad(name string, write bool) (*File, error) {
	r.t.Helper()
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	fd, err := r.vol.store.Open(r.vol.Root(), name, flags, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		r.t.Fatal(err)
	}
	f, err := r.vol.OpenFile(r.t.Context(), fd, st.Size, write, &fileLog{})
	if err != nil {
		unix.Close(fd)
	}
	return f, err
}

func (r *fileRig) load(name string, write bool) *File {
	r.t.Helper()
	f, err := r.tryLoad(name, write)
	if err != nil {
		r.t.Fatal(err)
	}
	return f
}

// write makes a sealed file with the given content.
func (r *fileRig) write(name string, content []byte) {
	r.t.Helper()
	f := r.create(name)
	if _, err := f.WriteAt(content, 0); err != nil {
		r.t.Fatal(err)
	}
	f.Release()
	if err := r.vol.SealAll(); err != nil {
		r.t.Fatal(err)
	}
}

// readAll returns what a File holds.
func readAll(t testing.TB, f *File) []byte {
	t.Helper()
	buf := make([]byte, f.Size()+1)
	n, err := f.ReadAt(buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// change rewrites the backing file behind the volume's back.
func (r *fileRig) change(name string, change func(b []byte) []byte) {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(name), change(b), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// nameBehind returns the name of the file that fd leads to, "" if it has none.
func nameBehind(fd int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return ""
	}
	return filepath.Base(path)
}
