package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

// rekey runs one on the open volume and returns the files that failed.
func (r *rewrapRig) rekey(o RekeyOptions) (RekeyCount, map[string]error, error) {
	r.t.Helper()
	if o.Paths == nil {
		o.Paths = []string{"."}
	}
	var mu sync.Mutex
	failed := map[string]error{}
	o.Failed = func(rel string, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed[rel] = err
	}
	count, err := r.vol.Rekey(r.t.Context(), o)
	if count.Rekeyed+count.Skipped+count.Failed > count.Files {
		r.t.Errorf("the counts do not add up: %+v", count)
	}
	return count, failed, err
}

func (r *rewrapRig) mustRekey(o RekeyOptions) RekeyCount {
	r.t.Helper()
	count, failed, err := r.rekey(o)
	if err != nil || len(failed) > 0 {
		r.t.Fatalf("rekey: %v, %v", err, failed)
	}
	if count.Done != count.Bytes || count.Rekeyed+count.Skipped != count.Files {
		r.t.Errorf("the counts do not add up: %+v", count)
	}
	return count
}

// ids returns the file IDs on disk, by plaintext path.
func (r *rewrapRig) ids() map[string]crypto.ID {
	r.t.Helper()
	ids := map[string]crypto.ID{}
	for plain := range r.want {
		ids[plain] = onDisk(r.t.(*testing.T), r.path(r.names[plain])).File
	}
	return ids
}

// checkNoTemps expects no temporary file anywhere.
func (r *rewrapRig) checkNoTemps() {
	r.t.Helper()
	err := filepath.WalkDir(r.dir, func(path string, e os.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), rekeyPrefix) {
			r.t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}

// attributes returns what a rekey must keep of a file.
func (r *rewrapRig) attributes(plain string) string {
	r.t.Helper()
	path := r.path(r.names[plain])
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		r.t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	xattrs, err := listXattrs(&backing.Store{}, backing.Target{FD: int(f.Fd())})
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprint(st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Mtim, st.Atim, xattrs)
}

// TestRekey rekeys a tree of all kinds of files.
func TestRekey(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(60)
	long := strings.Repeat("long", 60)
	r.want[long] = []byte("long name")
	r.write(r.stored(long), r.want[long])
	r.create(r.stored("empty")).Release()
	writeFile(t, r.path("README"), "foreign")
	const first = "d0/e0/file0"
	r.stored("d1/link")
	if err := os.Link(r.path(r.names[first]), r.path(r.names["d1/link"])); err != nil {
		t.Fatal(err)
	}
	r.want["d1/link"] = r.want[first]
	sparse := r.create(r.stored("sparse"))
	r.want["sparse"] = make([]byte, 40*block+77)
	copy(r.want["sparse"][20*block:], "in the midst")
	if _, err := sparse.WriteAt([]byte("in the midst"), 20*block); err != nil {
		t.Fatal(err)
	}
	if err := sparse.Truncate(40*block + 77); err != nil {
		t.Fatal(err)
	}
	sparse.Release()
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	r.dress(first, "d2/e2/file2")
	attributes := map[string]string{} // looked at before anything is read, which moves access times
	for plain := range r.want {
		attributes[plain] = r.attributes(plain)
	}
	ids := map[string]crypto.ID{}
	for plain := range r.want {
		ids[plain], _ = r.vol.peekID(r.names[plain])
	}
	holes := blocksOnDisk(t, r.path(r.names["sparse"]))

	count := r.mustRekey(RekeyOptions{})
	if count.Rekeyed != 62 || count.Empty != 1 {
		t.Errorf("%+v", count)
	}
	r.checkNoTemps()
	for plain := range r.want {
		if id, ok := r.vol.peekID(r.names[plain]); !ok || id == ids[plain] {
			t.Errorf("%s has its old file ID", plain)
		}
		if got := r.attributes(plain); got != attributes[plain] {
			t.Errorf("%s: attributes\n%s, want\n%s", plain, got, attributes[plain])
		}
	}
	if got := blocksOnDisk(t, r.path(r.names["sparse"])); got > holes {
		t.Errorf("the sparse file takes %d sectors, %d before", got, holes)
	}
	var a, b unix.Stat_t
	if unix.Stat(r.path(r.names[first]), &a) != nil || unix.Stat(r.path(r.names["d1/link"]), &b) != nil || a.Ino != b.Ino {
		t.Error("the hard link is none any more")
	}
	r.reopen(&backing.Store{})
	r.check()
	if h := onDisk(t, r.path(r.names["sparse"])); h.Flags != crypto.FlagSealed|crypto.FlagSparse {
		t.Errorf("the sparse file: %+v", h)
	}
	if h := onDisk(t, r.path(r.names[first])); h.Flags != crypto.FlagSealed {
		t.Errorf("a file: %+v", h)
	}
}

// dress gives files attributes of all sorts, as far as the file system and the user may have them.
func (r *rewrapRig) dress(names ...string) {
	r.t.Helper()
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x01\x00\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	for _, plain := range names {
		path := r.path(r.names[plain])
		for name, value := range map[string][]byte{
			"user.envfs.security.capability": []byte("sealed"), "user.comment": r.vol.SealAttr("user.comment", []byte("hi")), aclAccess: acl,
		} {
			if err := unix.Setxattr(path, name, value, 0); err != nil {
				r.t.Fatal(err)
			}
		}
		if os.Geteuid() == 0 {
			if err := unix.Chown(path, 1234, 2345); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := unix.Chmod(path, 0o4750); err != nil {
			r.t.Fatal(err)
		}
		old := []unix.Timespec{{Sec: 1_000_000_000, Nsec: 987_654_321}, {Sec: 1_100_000_000, Nsec: 123_456_789}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, old, 0); err != nil {
			r.t.Fatal(err)
		}
	}
}

func blocksOnDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestRekeyRefuses has single files refused, each for its own reason, with nothing changed.
func TestRekeyRefuses(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(30)
	name := func(i int) string { return r.names[fmt.Sprintf("d%d/e%d/file%d", i%3, i%7, i)] }
	r.stored("elsewhere/link")
	if err := os.Link(r.path(name(3)), r.path(r.names["elsewhere/link"])); err != nil {
		t.Fatal(err)
	}
	held, err := os.Open(r.path(name(6)))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	r.change(name(9), func(b []byte) []byte { b[1500] ^= 1; return b })                                      // a block
	r.change(name(12), func(b []byte) []byte { clear(b[1024:]); return b })                                  // zeros where no holes are
	r.change(name(15), func(b []byte) []byte { b[512-20] ^= 1; b[1024-20] ^= 1; fixChecksums(b); return b }) // the MAC
	before := r.snapshot()
	dir := strings.SplitN(name(0), "/", 2)[0] // d0, in which all of them are

	_, failed, err := r.rekey(RekeyOptions{Paths: []string{name(3), name(6), name(9), name(12), name(15)}})
	if err != nil {
		t.Fatal(err)
	}
	var block *BlockDamage
	for i, ok := range map[int]bool{
		3: errors.Is(failed[name(3)], ErrMoreLinks) && strings.Contains(failed[name(3)].Error(), r.names["elsewhere/link"]),
		6: errors.Is(failed[name(6)], ErrFileOpen), 9: errors.As(failed[name(9)], &block), 12: errors.As(failed[name(12)], &block),
		15: errors.Is(failed[name(15)], crypto.ErrHeaderTampered),
	} {
		if !ok {
			t.Errorf("file %d: %v", i, failed[name(i)])
		}
	}
	for path, was := range before {
		if now := r.snapshot()[path]; now != was && !strings.HasSuffix(path, filepath.Base(dir)) {
			if st, err := os.Stat(path); err != nil || !st.IsDir() {
				t.Errorf("%s has changed", path)
			}
		}
	}
	r.checkNoTemps()
	count, failed, err := r.rekey(RekeyOptions{Paths: []string{dir}})
	if err != nil || len(failed) != 5 || count.Rekeyed != 5 {
		t.Errorf("of the whole directory: %+v, %v, %v", count, failed, err)
	}
	for _, bad := range []string{"..", "/etc", "../x", "no/such", ConfigName} {
		if _, _, err := r.rekey(RekeyOptions{Paths: []string{bad}}); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// TestRekeyResumes stops a rekey by an outage, and has a journal lead the next one.
func TestRekeyResumes(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(300)
	r.reopen(&backing.Store{}) // so that keys come from the key service
	journal := func() *RekeyJournal {
		j, err := r.vol.OpenRekeyJournal(filepath.Join(filepath.Dir(r.dir), "journal"))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	ctx, cancel := context.WithCancel(t.Context())
	j := journal()
	count, err := r.vol.Rekey(ctx, RekeyOptions{Paths: []string{"."}, Journal: j, Progress: func(c RekeyCount) {
		if c.Rekeyed > 20 {
			cancel()
		}
	}})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, context.Canceled) && count.Rekeyed < 300 {
		t.Fatalf("%+v, %v", count, err)
	}
	r.checkNoTemps()
	ids := r.ids()
	writeFile(t, filepath.Join(filepath.Dir(r.dir), "journal"), readFile(t, filepath.Join(filepath.Dir(r.dir), "journal"))+"cut of")
	j = journal()
	rest := r.mustRekey(RekeyOptions{Journal: j})
	if rest.Skipped != count.Rekeyed || rest.Rekeyed != 300-count.Rekeyed {
		t.Errorf("%+v after %+v", rest, count)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	kept := int64(0)
	for plain, id := range r.ids() {
		if id == ids[plain] {
			kept++
		}
	}
	if kept != count.Rekeyed {
		t.Errorf("%d files kept their ID, want %d", kept, count.Rekeyed)
	}
	j = journal()
	if all := r.mustRekey(RekeyOptions{Journal: j}); all.Skipped != 300 {
		t.Errorf("a third time: %+v", all)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r.check()
	writeFile(t, filepath.Join(t.TempDir(), "x"), "")
	other := filepath.Join(t.TempDir(), "other")
	writeFile(t, other, "something else\n")
	if _, err := r.vol.OpenRekeyJournal(other); !errors.Is(err, ErrOtherJournal) || readFile(t, other) != "something else\n" {
		t.Errorf("another file as journal: %v", err)
	}
}

// TestRekeyUnreachable: without the key service nothing goes, and nothing changes.
func TestRekeyUnreachable(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(5)
	r.reopen(&backing.Store{})
	r.fake.Outage()
	count, failed, err := r.rekey(RekeyOptions{})
	if !errors.Is(err, keyring.ErrUnreachable) || len(failed) > 0 || count.Rekeyed > 0 {
		t.Errorf("%+v, %v, %v", count, failed, err)
	}
	r.fake.Restore()
	r.checkNoTemps()
	r.check()
}

// TestRekeyKilledAnywhere stops a rekey before each of its calls in turn, as a kill would. Each name then opens with its
// content, and the next rekey clears away and finishes.
func TestRekeyKilledAnywhere(t *testing.T) {
	r := newRewrapRig(t)
	r.fill(2)
	names := []string{"a/one", "b/two", "three"}
	r.want[names[0]] = pattern(9, 9000)
	r.write(r.stored(names[0]), r.want[names[0]])
	for _, n := range names[1:] {
		r.stored(n)
		if err := os.Link(r.path(r.names[names[0]]), r.path(r.names[n])); err != nil {
			t.Fatal(err)
		}
		r.want[n] = r.want[names[0]]
	}
	for at := 1; ; at++ {
		if at > 500 {
			t.Fatal("the rekey never ends")
		}
		l := &lethal{at: 1 << 30}
		r.reopen(&backing.Store{Hook: l})
		l.at, l.n = at, 0
		count, failed, err := r.rekey(RekeyOptions{})
		dead := l.n >= at
		l.at = 1 << 30
		r.reopen(&backing.Store{})
		r.check()
		if !dead {
			if err != nil || len(failed) > 0 || count.Rekeyed != 3 {
				t.Fatalf("%d calls, none of which failed: %+v, %v, %v", at-1, count, failed, err)
			}
			if at < 40 {
				t.Errorf("only %d calls", at)
			}
			break
		}
		if err == nil && len(failed) == 0 {
			t.Errorf("call %d fails, but the rekey does not", at)
		}
		r.mustRekey(RekeyOptions{})
		r.checkNoTemps()
		r.check()
		var one, other unix.Stat_t
		for _, n := range names {
			if err := unix.Stat(r.path(r.names[n]), &other); err != nil {
				t.Fatal(err)
			}
			if one.Ino == 0 {
				one = other
			}
			if other.Ino != one.Ino || other.Nlink != 3 {
				t.Fatalf("killed at call %d: %s has %d names, or is another file", at, n, other.Nlink)
			}
		}
	}
	if !bytes.Equal(r.want["three"], pattern(9, 9000)) {
		t.Error("the test has changed what it expects")
	}
}
