package volume

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
	"golang.org/x/sys/unix"
)

// rewrapRig is a volume with some of each kind of file, and what is in them.
type rewrapRig struct {
	*fileRig
	fake  *keyringtest.Fake
	names map[string]string // stored path by plaintext path
	want  map[string][]byte // content by plaintext path
}

func newRewrapRig(t testing.TB) *rewrapRig {
	r := &rewrapRig{fileRig: newFileRig(t), names: map[string]string{}, want: map[string][]byte{}}
	r.fake = r.kr.(*keyringtest.Fake)
	return r
}

// stored returns how a plaintext path is stored, and makes the directories above it.
func (r *rewrapRig) stored(plain string) string {
	r.t.Helper()
	if s := r.names[plain]; s != "" {
		return s
	}
	s, err := r.vol.EncryptPath(plain)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path(s)), 0o700); err != nil {
		r.t.Fatal(err)
	}
	r.names[plain] = s
	return s
}

// fill makes sealed files.
func (r *rewrapRig) fill(n int) {
	r.t.Helper()
	for i := range n {
		plain := fmt.Sprintf("d%d/e%d/file%d", i%3, i%7, i)
		r.want[plain] = pattern(uint64(i), int64(i*997%9000+1))
		f := r.create(r.stored(plain))
		if _, err := f.WriteAt(r.want[plain], 0); err != nil {
			r.t.Fatal(err)
		}
		f.Release()
	}
	if err := r.vol.SealAll(); err != nil {
		r.t.Fatal(err)
	}
}

// rewrap runs one on the volume, which may be open, and returns the files that failed.
func (r *rewrapRig) rewrap(o RewrapOptions) (RewrapResult, map[string]error, error) {
	return r.rewrapWith(r.t.Context(), o)
}

func (r *rewrapRig) rewrapWith(ctx context.Context, o RewrapOptions) (RewrapResult, map[string]error, error) {
	if o.Keyring == nil {
		o.Keyring = r.fake
	}
	var mu sync.Mutex
	failed := map[string]error{}
	o.Failed = func(rel string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed[rel] = err
	}
	result, err := Rewrap(ctx, r.dir, o)
	return result, failed, err
}

// mustRewrap expects that nothing fails.
func (r *rewrapRig) mustRewrap(o RewrapOptions) RewrapResult {
	r.t.Helper()
	result, failed, err := r.rewrap(o)
	if err != nil || len(failed) > 0 {
		r.t.Fatalf("rewrap: %v, %v", err, failed)
	}
	if done := result.Rewrapped + result.Current + result.Failed; done != result.Files || !result.Complete {
		r.t.Errorf("the counts do not add up: %+v", result)
	}
	return result
}

// check opens each file and compares its content.
func (r *rewrapRig) check() {
	r.t.Helper()
	for plain, want := range r.want {
		f, err := r.tryLoad(r.names[plain], false)
		if err != nil {
			r.t.Fatalf("%s: %v", plain, err)
		}
		if got := readAll(r.t, f); !bytes.Equal(got, want) {
			r.t.Errorf("%s: %d bytes that differ, want %d", plain, len(got), len(want))
		}
		f.Release()
	}
}

// versions returns the KEK versions in both slots of a file, that of the slot that counts first; 0 for one never written.
func (r *rewrapRig) versions(plain string) (counts, other int) {
	r.t.Helper()
	header := make([]byte, 1024)
	f, err := os.Open(r.path(r.names[plain]))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(header, 0); err != nil {
		r.t.Fatal(err)
	}
	slot, index, err := crypto.NewestSlot(header, 512)
	if err != nil {
		r.t.Fatal(err)
	}
	if o, err := crypto.DecodeSlot(header[(1-index)*512 : (2-index)*512]); err == nil {
		other = versionOf(keyring.Wrapped(o.Wrapped))
	}
	return versionOf(keyring.Wrapped(slot.Wrapped)), other
}

// checkVersions expects one version everywhere: no old key is left on the disk.
func (r *rewrapRig) checkVersions(want int) {
	r.t.Helper()
	for plain := range r.want {
		if counts, other := r.versions(plain); counts != want || other != want {
			r.t.Errorf("%s: key versions %d and %d, want %d", plain, counts, other, want)
		}
	}
	cfg, err := ReadConfig(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	if got := versionOf(cfg.WrappedVolumeKey); got != want {
		r.t.Errorf("volume key: version %d, want %d", got, want)
	}
}

// snapshot returns all that is in the ciphertext directory: content, mode, size and times.
func (r *rewrapRig) snapshot() map[string]string {
	r.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(r.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if !e.Type().IsRegular() {
			st.Atim = unix.Timespec{} // of a directory or link that is read it may move
		}
		about := fmt.Sprint(st.Mode, st.Size, st.Uid, st.Gid, st.Nlink, st.Ino, st.Mtim, st.Atim)
		if e.Type().IsRegular() {
			fd, oerr := unix.Open(path, unix.O_RDONLY|unix.O_NOATIME, 0)
			if oerr != nil {
				return oerr
			}
			b := make([]byte, st.Size)
			if _, err := (&backing.Store{}).ReadAt(fd, b, 0); err != nil {
				return err
			}
			about += string(b)
			err = unix.Close(fd)
		}
		all[path] = about
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// lethal makes every call fail from call number at on: what a killed process has done so far is on disk, and no more. With
// tear, a write that is that call is done in part. The operations that count are those which change something.
type lethal struct {
	mu   sync.Mutex
	at   int
	tear int64
	n    int
}

func (l *lethal) Before(c *backing.Call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.Op {
	case backing.OpWrite, backing.OpSync, backing.OpSyncFS, backing.OpSetattr, backing.OpRename, backing.OpUnlink,
		backing.OpTruncate, backing.OpLink, backing.OpXattr:
		l.n++
	case backing.OpOpen:
		if c.Flags&unix.O_CREAT != 0 {
			l.n++
		}
	}
	if l.n == l.at && c.Op == backing.OpWrite && l.tear > 0 {
		c.Size = min(c.Size, l.tear)
		l.n++ // and dead from then on
		return nil
	}
	if l.n >= l.at {
		return unix.EIO
	}
	return nil
}
