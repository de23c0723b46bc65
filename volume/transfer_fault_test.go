package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/keyring/keyringtest"
)

// callHook calls f before each call of a Store.
type callHook func(c *backing.Call) error

func (h callHook) Before(c *backing.Call) error { return h(c) }

// manyFiles makes a plain directory with n files of one block and a bit, and returns their names.
func (r *transferRig) manyFiles(dir string, n int) []string {
	r.t.Helper()
	if err := os.Mkdir(r.in(dir), 0o755); err != nil {
		r.t.Fatal(err)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("file", i)
		writeFile(r.t, filepath.Join(r.in(dir), names[i]), string(pattern(uint64(i), block+77)))
	}
	return names
}

// wholeFiles checks that each of the names that is in a plain directory is whole, and returns how many are.
func (r *transferRig) wholeFiles(dir, source string, names []string) int {
	r.t.Helper()
	found := 0
	for _, name := range names {
		got, err := os.ReadFile(filepath.Join(r.in(dir), name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		want, werr := os.ReadFile(filepath.Join(r.in(source), name))
		if err != nil || werr != nil || !bytes.Equal(got, want) {
			r.t.Errorf("%s/%s is there with %d bytes that differ: %v", dir, name, len(got), errors.Join(err, werr))
		}
		found++
	}
	return found
}

// TestTransferInterrupted ends exports and imports in their midst: nothing that is not whole has its final name, and
// nothing is left of what has not got it.
func TestTransferInterrupted(t *testing.T) {
	// A file takes two writes and one more to be sealed, and two reads and one more for its key. In the midst is in the
	// second batch.
	const n = transferFiles + 50
	const midstWrite, midstRead = 3*transferFiles + 50, 3*transferFiles + 50 + 50
	for _, calls := range []struct{ writes, reads int64 }{{20, 20}, {midstWrite, midstRead}} {
		t.Run(fmt.Sprint(calls.writes), func(t *testing.T) {
			r := newTransferRig(t)
			names := r.manyFiles("source", n)
			interrupted := func(op backing.Op, calls int64) context.Context {
				ctx, cancel := context.WithCancel(t.Context())
				t.Cleanup(cancel)
				var seen atomic.Int64
				r.reopen(&backing.Store{Hook: callHook(func(c *backing.Call) error {
					if c.Op == op && seen.Add(1) == calls {
						cancel()
					}
					return nil
				})})
				return ctx
			}
			ctx := interrupted(backing.OpWrite, calls.writes)
			o := ImportOptions{TransferOptions: r.options(false), Source: r.in("source"), Target: "tree"}
			if _, err := r.vol.Import(ctx, o); ctx.Err() != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("import: %v", err)
			}
			r.reopen(&backing.Store{})
			r.noLeftovers()
			if _, err := r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in("first")}); err != nil || len(r.failed) > 0 {
				t.Fatalf("export of what was imported: %v, %v", err, r.failed)
			}
			imported := r.wholeFiles("first/tree", "source", names)

			o = ImportOptions{TransferOptions: r.options(true), Source: r.in("source"), Target: "tree"}
			if _, err := r.vol.Import(t.Context(), o); err != nil || len(r.failed) > 0 {
				t.Fatalf("import again: %v, %v", err, r.failed)
			}
			ctx = interrupted(backing.OpRead, calls.reads)
			_, err := r.tryExport(ctx, ExportOptions{Source: r.stored("tree"), Target: r.in("second")})
			if ctx.Err() != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("export: %v", err)
			}
			r.noLeftovers()
			exported := r.wholeFiles("second", "source", names)
			want := map[int64]int{midstWrite: transferFiles}[calls.writes]
			if imported != want || exported != want {
				t.Errorf("%d and %d files are there, want %d", imported, exported, want)
			}
		})
	}
}

// TestImportKilledAnywhere stops an import before one of its calls: what has its name in the volume is whole, and the next
// import finishes the work and clears away.
func TestImportKilledAnywhere(t *testing.T) {
	r := newTransferRig(t)
	names := r.manyFiles("source", sealEach+3)
	for _, name := range []string{"sub", "sub/" + strings.Repeat("d", MaxName)} {
		if err := os.Mkdir(r.in("source/"+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	long := "sub/" + strings.Repeat("d", MaxName) + "/" + strings.Repeat("f", MaxName)
	writeFile(t, r.in("source/"+long), "long")
	if err := os.Link(r.in("source/"+long), r.in("source/sub/link")); err != nil {
		t.Fatal(err)
	}
	names = append(names, long, "sub/link")
	for at := 1; ; at += 1 + at/8 {
		target := fmt.Sprint("tree", at)
		l := &lethal{at: at, tear: 100}
		r.reopen(&backing.Store{Hook: l})
		_, err := r.vol.Import(t.Context(), ImportOptions{TransferOptions: r.options(false), Source: r.in("source"), Target: target})
		dead := l.n >= at
		if err := r.vol.Close(); err != nil && !dead {
			t.Fatal(err)
		}
		r.vol = nil
		if !dead && (err != nil || len(r.failed) > 0) {
			t.Fatalf("%d calls, none of which failed: %v, %v", at, err, r.failed)
		}
		r.open(&backing.Store{})
		if _, err := os.Lstat(r.path(r.stored(target))); err == nil {
			r.export(r.stored(target), r.in(target))
			r.wholeFiles(target, "source", names)
		}
		again := ImportOptions{TransferOptions: r.options(true), Source: r.in("source"), Target: target}
		if _, err := r.vol.Import(t.Context(), again); err != nil || len(r.failed) > 0 {
			t.Fatalf("import after call %d failed: %v, %v", at, err, r.failed)
		}
		r.noLeftovers()
		r.export(r.stored(target), r.in(target+"again"))
		if found := r.wholeFiles(target+"again", "source", names); found != len(names) {
			t.Errorf("%d of %d files", found, len(names))
		}
		if !dead {
			if at < 100 {
				t.Errorf("only %d calls", at)
			}
			return
		}
	}
}

// TestTransferAsksInBatches counts the requests to the key service.
func TestTransferAsksInBatches(t *testing.T) {
	r := newTransferRig(t)
	const n = 700
	r.manyFiles("source", n)
	fake := r.kr.(*keyringtest.Fake)
	r.importTo("tree", r.in("source"))
	if wraps := fake.Counters().Wraps; wraps > n/25 {
		t.Errorf("%d requests to wrap the keys of %d files", wraps, n)
	}
	r.reopen(&backing.Store{})
	fake.ResetCounters()
	fake.SetDelay(20 * time.Millisecond) // a service that answers at once has no reason to be asked for much
	r.export(r.stored("tree"), r.in("copy"))
	if c := fake.Counters(); c.Unwraps > n/25 || c.Items < n {
		t.Errorf("%d requests for %d keys of %d files", c.Unwraps, c.Items, n)
	}
}

// TestExportWithoutKeys has the key service refuse one key, and then fall silent.
func TestExportWithoutKeys(t *testing.T) {
	r := newTransferRig(t)
	names := r.manyFiles("source", 30)
	r.importTo(".", r.in("source"))
	r.reopen(&backing.Store{})
	refused := r.stored("file7")
	fd, err := r.vol.openForWalk(r.vol.Root(), refused)
	if err != nil {
		t.Fatal(err)
	}
	fake := r.kr.(*keyringtest.Fake)
	fake.FailItem(r.vol.wrappedIn(fd), keyring.ErrRevoked)
	unix.Close(fd)
	_, err = r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in("first"), Salvage: true})
	if err != nil || len(r.failed) != 1 || !errors.Is(r.failed[refused], keyring.ErrRevoked) || len(r.lost) > 0 {
		t.Errorf("%v, %v, %v", err, r.failed, r.lost)
	}
	if found := r.wholeFiles("first", "source", names); found != 29 {
		t.Errorf("%d files", found)
	}
	r.reopen(&backing.Store{})
	fake.Outage()
	defer fake.Restore()
	_, err = r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in("second"), Salvage: true})
	if !errors.Is(err, keyring.ErrUnreachable) {
		t.Errorf("without a key service: %v", err)
	}
	r.noLeftovers()
	if found := r.wholeFiles("second", "source", names); found != 0 {
		t.Errorf("%d files", found)
	}
}

// TestImportOfChangingFile changes a file while it is encrypted.
func TestImportOfChangingFile(t *testing.T) {
	for _, change := range []struct {
		name string
		do   func(f *os.File) error
	}{
		{"shorter", func(f *os.File) error { return f.Truncate(2 << 20) }},
		{"longer", func(f *os.File) error { return f.Truncate(5 << 20) }},
		{"written", func(f *os.File) error { _, err := f.WriteAt([]byte("new"), 100); return err }},
	} {
		t.Run(change.name, func(t *testing.T) {
			r := newTransferRig(t)
			writeFile(t, r.in("file"), string(pattern(1, 3<<20)))
			f, err := os.OpenFile(r.in("file"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var once sync.Once
			r.reopen(&backing.Store{Hook: callHook(func(c *backing.Call) error {
				if c.Op == backing.OpWrite {
					once.Do(func() { err = change.do(f) })
				}
				return nil
			})})
			o := ImportOptions{TransferOptions: r.options(false), Source: r.in("file"), Target: "file"}
			if _, ierr := r.vol.Import(t.Context(), o); ierr != nil || err != nil || !errors.Is(r.failed[r.in("file")], ErrFileChanged) {
				t.Errorf("%v, %v, %v", ierr, err, r.failed)
			}
			if _, err := os.Lstat(r.path(r.stored("file"))); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a mixture of two contents is in the volume: %v", err)
			}
			r.noLeftovers()
		})
	}
}

// TestTransferAgain transfers a tree over an older state of itself, links of which lead elsewhere.
func TestTransferAgain(t *testing.T) {
	r := newTransferRig(t)
	names := makeTree(t, r.in("source"), 99, 60)
	attrs := lstatAll(t, r.in("source"), names)
	r.importTo("tree", r.in("source"))
	r.export(r.stored("tree"), r.in("copy"))
	outside := r.in("outside")
	writeFile(t, outside, "untouched")
	for _, name := range names {
		path := filepath.Join(r.in("copy"), name)
		if st, err := os.Lstat(path); err != nil || st.IsDir() {
			continue
		}
		if err := errors.Join(os.Remove(path), os.Symlink(outside, path)); err != nil {
			t.Fatal(err)
		}
	}
	count, err := r.tryExport(t.Context(), ExportOptions{Source: r.stored("tree"), Target: r.in("copy")})
	if err != nil || count.Failed == 0 || int(count.Failed) != len(r.failed) || count.Files+count.Symlinks+count.Special+count.Links != 0 {
		t.Errorf("onto a tree that is there: %+v, %v", count, err)
	}
	for path, err := range r.failed {
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, ErrOtherNameFailed) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, o := range []TransferOptions{r.options(true), r.options(true)} {
		_, err := r.vol.Import(t.Context(), ImportOptions{TransferOptions: o, Source: r.in("source"), Target: "tree"})
		if err == nil {
			_, err = r.vol.Export(t.Context(), ExportOptions{TransferOptions: o, Source: r.stored("tree"), Target: r.in("copy")})
		}
		if err != nil || len(r.failed) > 0 {
			t.Fatalf("%v, %v", err, r.failed)
		}
	}
	r.noLeftovers()
	got := snapshot(t, r.in("copy"), names, lstatAll(t, r.in("copy"), names))
	want := snapshot(t, r.in("source"), names, attrs)
	atime := regexp.MustCompile(`atime {[^}]*}`) // moved by the further imports
	for i, name := range names {
		got, want := atime.ReplaceAllString(got[i], ""), atime.ReplaceAllString(want[i], "")
		if got != want {
			t.Errorf("%q:\n%s, want\n%s", name, got, want)
		}
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "untouched" {
		t.Errorf("a link was written through: %q, %v", text, err)
	}
	if !slices.Equal(listNames(t, r.in("copy")), listNames(t, r.in("source"))) {
		t.Error("the trees hold other entries")
	}
}

func listNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTransferIsNotFirst has somebody else take a name between the look at it and its use.
func TestTransferIsNotFirst(t *testing.T) {
	r := newTransferRig(t)
	writeFile(t, r.in("file"), "ours")
	path := r.path(r.stored("file"))
	var once sync.Once
	r.reopen(&backing.Store{Hook: callHook(func(c *backing.Call) (err error) {
		if c.Op == backing.OpWrite {
			once.Do(func() { err = os.WriteFile(path, []byte("theirs"), 0o600) })
		}
		return err
	})})
	o := ImportOptions{TransferOptions: r.options(false), Source: r.in("file"), Target: "file"}
	if _, err := r.vol.Import(t.Context(), o); err != nil || !errors.Is(r.failed[r.in("file")], unix.EEXIST) {
		t.Errorf("%v, %v", err, r.failed)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "theirs" {
		t.Errorf("what somebody else made became %q, %v", text, err)
	}
	r.noLeftovers()
}

// TestTransferWithoutRightToGive has no right to give files away: they keep everything but owner and set-id bits, which
// would be a gift to the wrong one.
func TestTransferWithoutRightToGive(t *testing.T) {
	r := newTransferRig(t)
	writeFile(t, r.in("file"), "tool")
	if err := unix.Chmod(r.in("file"), 0o6755); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	r.reopen(&backing.Store{Hook: callHook(func(c *backing.Call) (err error) {
		// The owner is the first that an entry is given.
		if flags, ferr := unix.FcntlInt(uintptr(c.FD), unix.F_GETFL, 0); c.Op == backing.OpSetattr && ferr == nil && flags&unix.O_PATH != 0 {
			once.Do(func() { err = unix.EPERM })
		}
		return err
	})})
	count := r.importTo("file", r.in("file"))
	var st unix.Stat_t
	if err := unix.Stat(r.path(r.stored("file")), &st); err != nil || st.Mode&0o7777 != 0o755 || count.OwnersLost != 1 {
		t.Errorf("%v, mode %o, %+v", err, st.Mode, count)
	}
}

// TestTransferExchanged has the unfinished copy exchanged, at the last moment, for a file that somebody wants to be given.
func TestTransferExchanged(t *testing.T) {
	r := newTransferRig(t)
	writeFile(t, r.in("file"), "ours")
	coveted := r.path("coveted")
	writeFile(t, coveted, "secret")
	if err := errors.Join(unix.Chmod(r.in("file"), 0o777), unix.Chmod(coveted, 0o600)); err != nil {
		t.Fatal(err)
	}
	var exchange error
	r.reopen(&backing.Store{Hook: callHook(func(c *backing.Call) error {
		if c.Op == backing.OpOpen && c.Flags == unix.O_PATH && strings.HasPrefix(c.Name, rekeyPrefix) {
			exchange = os.Rename(coveted, r.path(c.Name))
		}
		return nil
	})})
	o := ImportOptions{TransferOptions: r.options(false), Source: r.in("file"), Target: "file"}
	if _, err := r.vol.Import(t.Context(), o); err != nil || exchange != nil || !errors.Is(r.failed[r.in("file")], errExchanged) {
		t.Errorf("%v, %v, %v", err, exchange, r.failed)
	}
	if _, err := os.Lstat(r.path(r.stored("file"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was exchanged got the name: %v", err)
	}
}
