package integration

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/envfs/envfs/keyring/vault/vaulttest"
	"golang.org/x/sys/unix"
)

// keyTTL is the --key-ttl of the mounts whose keys are refused: how long a right that was withdrawn may go on.
const keyTTL = 2 * time.Second

// TestRevocation withdraws access in each way in which an operator can, and grants it again where that can be done.
func TestRevocation(t *testing.T) {
	for _, test := range []struct {
		name   string
		refuse func(r *rig, s *vaulttest.Server)
		errno  syscall.Errno
		grant  func(r *rig, s *vaulttest.Server) // nil: it is for ever
		spared bool                              // the file of the newest version is another matter
	}{
		{"policy withdrawn",
			func(_ *rig, s *vaulttest.Server) { s.Policy("readwrite", policyOfKeysOnly) }, syscall.EACCES,
			func(_ *rig, s *vaulttest.Server) { s.Policy("readwrite", policyReadWrite) }, false},
		{"token revoked, and no login", func(r *rig, s *vaulttest.Server) {
			token := strings.TrimSpace(r.read(r.below("token")))
			r.write(r.below("token"), "hvs.refused\n")
			s.Revoke(token)
		}, syscall.EACCES,
			func(r *rig, s *vaulttest.Server) { r.write(r.below("token"), s.Token(0, "readwrite")+"\n") }, false},
		{"min_decryption_version raised",
			func(_ *rig, s *vaulttest.Server) {
				s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2})
			}, syscall.EKEYREVOKED,
			func(_ *rig, s *vaulttest.Server) {
				s.ConfigureKey("docs", map[string]any{"min_decryption_version": 1})
			}, true},
		{"key deleted", func(_ *rig, s *vaulttest.Server) { s.DeleteKey("docs") }, syscall.EKEYREVOKED, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, s := newVaultRig(t, nil)
			r.faults = true
			r.write(r.below("token"), s.Token(0, "readwrite")+"\n")
			r.mountFlags = []string{"--token-file", r.below("token"), "--key-ttl", keyTTL.String(), "--vault-wait", "1s"}
			r.mount()
			f := r.openedFile("old")
			s.RotateKey("docs")
			r.remount() // so that what is made now is of the new version
			r.write(r.path("new"), "content of new")
			f.reopen()

			test.refuse(r, s)
			f.refused(test.errno)
			if test.spared {
				if got := r.read(r.path("new")); got != "content of new" {
					t.Errorf("a file of a version that is allowed: %q", got)
				}
			}
			r.sh(`test "$(stat -c %s old)" = 20000; chmod 640 old; mv old moved; mv moved old; mkdir d; rmdir d`)
			if test.grant == nil {
				f.close()
				return
			}
			test.grant(r, s)
			r.until("reading what is open, with what was written before", func() bool {
				got, err := f.content()
				return err == nil && bytes.Equal(got, f.want)
			})
			if got := r.read(r.path("old")); got != string(f.want) {
				t.Error("opened again it has other content")
			}
			f.close()
			r.remount()
			if got := r.read(r.path("old")); got != string(f.want) {
				t.Error("after a remount it has other content")
			}
		})
	}
}

// policyOfKeysOnly is what is left of policyReadWrite when the right to use keys is withdrawn.
const policyOfKeysOnly = `path "transit/keys/docs" { capabilities = ["read"] }`

// openedFile is a file that is open while its key is refused. Its pages are in the kernel's cache, and one of them is dirty.
type openedFile struct {
	r    *rig
	name string
	f    *os.File
	view []byte // a mapping of it
	want []byte // content
}

func (r *rig) openedFile(name string) *openedFile {
	r.t.Helper()
	o := &openedFile{r: r, name: name, want: bytes.Repeat([]byte("secret at hand, dear"), 1000)}
	r.write(r.path(name), string(o.want))
	return o
}

// reopen opens and maps it, reads all of it, and writes without having it written back.
func (o *openedFile) reopen() {
	o.r.t.Helper()
	var err error
	if o.f, err = os.OpenFile(o.r.path(o.name), os.O_RDWR, 0); err != nil {
		o.r.t.Fatal(err)
	}
	o.r.t.Cleanup(o.close)
	o.view, err = unix.Mmap(int(o.f.Fd()), 0, len(o.want), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		o.r.t.Fatal(err)
	}
	if !bytes.Equal(o.view, o.want) {
		o.r.t.Fatal("other content")
	}
	if _, err := o.f.WriteAt([]byte("SECRET"), 0); err != nil {
		o.r.t.Fatal(err)
	}
	copy(o.want, "SECRET")
}

// content reads all of it through the descriptor.
func (o *openedFile) content() ([]byte, error) {
	got := make([]byte, len(o.want))
	_, err := o.f.ReadAt(got, 0)
	return got, err
}

// refused waits for the refusal, and checks that nothing leads around it.
func (o *openedFile) refused(errno syscall.Errno) {
	o.r.t.Helper()
	// Without --key-ttl this would last for minutes, and until would give up.
	o.r.until("a refusal although the pages were cached", func() bool {
		_, err := o.content()
		return errors.Is(err, errno)
	})
	if _, err := os.ReadFile(o.r.path(o.name)); !errors.Is(err, errno) {
		o.r.t.Errorf("opening it: %v, want %v", err, errno)
	}
	if got, err := o.seen(); err == nil {
		o.r.t.Errorf("what is mapped can still be read: %q", got)
	}
	_, err := o.f.WriteAt([]byte("lost"), 100)
	if err == nil {
		err = o.f.Sync()
	}
	if !errors.Is(err, errno) {
		o.r.t.Errorf("writing it: %v, want %v", err, errno)
	}
}

// seen reads from the mapping without touching it in this process, which a fault would end.
func (o *openedFile) seen() (string, error) {
	p, err := os.OpenFile("/proc/self/mem", os.O_RDONLY, 0)
	if err != nil {
		o.r.t.Fatal(err)
	}
	defer func() { _ = p.Close() }() // only read
	got := make([]byte, 6)
	_, err = p.ReadAt(got, int64(uintptr(unsafe.Pointer(&o.view[0]))))
	return string(got), err
}

func (o *openedFile) close() {
	if o.f == nil {
		return
	}
	if err := unix.Munmap(o.view); err != nil {
		o.r.t.Error(err)
	}
	_ = o.f.Close() // with a refused key it may say so
	o.f = nil
}
