package fs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring/keyringtest"
	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// rig is a volume on a directory of the test, mounted.
type rig struct {
	t      testing.TB
	cipher string // the ciphertext directory
	dir    string // the mount
	kr     *keyringtest.Fake
	opts   Options
	open   volume.OpenOptions
	vol    *volume.Volume
	server *Server
	log    *logSink
}

// newRig makes and mounts a volume, and unmounts it when the test ends. Each change is made before the volume is mounted.
func newRig(t testing.TB, o Options, changes ...func(r *rig)) *rig {
	t.Helper()
	base := openTempDir(t)
	r := &rig{
		t: t, cipher: filepath.Join(base, "cipher"), dir: filepath.Join(base, "clear"), opts: o,
		kr: keyringtest.NewFake(secret.NewArena(nil)), log: &logSink{},
		open: volume.OpenOptions{SealDelay: 50 * time.Millisecond},
	}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(r)
	}
	r.init(volume.InitOptions{})
	r.mount()
	t.Cleanup(func() {
		if r.server != nil {
			r.unmount()
		}
	})
	return r
}

// withHook has a hook see the calls below.
func withHook(h backing.Hook) func(r *rig) {
	return func(r *rig) { r.open.Store = &backing.Store{Hook: h} }
}

// withSealDelay sets how long a closed file waits for its seal.
func withSealDelay(d time.Duration) func(r *rig) { return func(r *rig) { r.open.SealDelay = d } }

// openTempDir is a directory of the test that other users can get at.
func openTempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (r *rig) init(o volume.InitOptions) {
	r.t.Helper()
	o.Keyring, o.Arena = r.kr, secret.NewArena(nil)
	o.Ref = volume.KeyringRef{Type: "vault", Vault: &volume.VaultRef{Mount: "transit", Key: "test"}}
	if _, err := volume.Init(r.t.Context(), r.cipher, o); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chmod(r.cipher, 0o755); err != nil { // the mode of the mount's root
		r.t.Fatal(err)
	}
}

func (r *rig) mount() {
	r.t.Helper()
	if err := r.tryMount(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryMount() error {
	cfg, err := volume.ReadConfig(r.cipher)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	r.open.ReadOnly, r.open.Arena, r.open.Log = r.opts.ReadOnly, secret.NewArena(nil), log
	waitFor(r.t, "the lock of the volume", func() bool {
		// A process that another test is starting has all descriptors, and with them the lock, until it executes its program.
		r.vol, err = volume.Open(context.Background(), r.cipher, cfg, r.kr, r.open)
		return !errors.Is(err, volume.ErrLocked)
	})
	if err != nil {
		return err
	}
	r.opts.Log = log
	r.opts.FsName = r.cipher
	r.opts.Debug = os.Getenv("ENVFS_TRACE") != ""
	if r.opts.Debug {
		r.opts.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if r.server, err = Mount(r.vol, r.dir, r.opts); err != nil {
		return errors.Join(err, r.vol.Close())
	}
	return nil
}

// unmount unmounts and closes the volume, after which every file is sealed.
func (r *rig) unmount() {
	r.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		// A process that the test has ended may not be gone yet.
		if err = r.server.Unmount(); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		if derr := unix.Unmount(r.dir, unix.MNT_DETACH); derr != nil {
			r.t.Error(derr)
		}
		r.t.Fatalf("unmount: %v", err)
	}
	if err := r.server.Wait(); err != nil {
		r.t.Errorf("after unmount: %v", err)
	}
	if err := r.vol.Close(); err != nil {
		r.t.Error(err)
	}
	r.server = nil
	if r.t.Failed() {
		r.t.Logf("the mount said:\n%s", r.log)
	}
}

// remount makes everything cold: what is read from now on comes from the disk.
func (r *rig) remount() {
	r.t.Helper()
	r.unmount()
	r.mount()
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// stored returns the path of the ciphertext of name.
func (r *rig) stored(name string) string {
	r.t.Helper()
	rel, err := r.vol.EncryptPath(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(r.cipher, rel)
}

// write makes a file through the mount.
func (r *rig) write(name string, content []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.path(name), content, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// want reads a file through the mount and compares it.
func (r *rig) want(name string, content []byte) {
	r.t.Helper()
	got, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Errorf("read %s: %v", name, err)
	} else if !bytes.Equal(got, content) {
		r.t.Errorf("%s: read %s, want %s", name, digest(got), digest(content))
	}
}

// seal waits until every closed file is sealed. A file counts as closed once the kernel has said so, which it does some time
// after close(2).
func (r *rig) seal() {
	r.t.Helper()
	waitFor(r.t, "the kernel to release all files", func() bool { return r.server.OpenHandles() == 0 })
	if err := r.vol.SealAll(); err != nil {
		r.t.Fatal(err)
	}
}

// patience bounds the wait for what happens soon, even on a machine that is busy with other tests.
const patience = time.Minute

// waitFor waits until what is said to happen has happened.
func waitFor(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logSink keeps what is logged.
type logSink struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logSink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logSink) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// count returns how often a text was logged.
func (l *logSink) count(text string) int { return strings.Count(l.String(), text) }
