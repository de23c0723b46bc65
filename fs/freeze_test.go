package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/volume"
	"golang.org/x/sys/unix"
)

// freeze freezes without a limit of time.
func (r *rig) freeze() *Freeze {
	r.t.Helper()
	f, err := r.server.Freeze(r.t.Context(), 0)
	if err != nil {
		r.t.Fatalf("freeze: %v", err)
	}
	r.t.Cleanup(func() { _ = f.Thaw() }) // or a test that fails could not unmount
	return f
}

// onDisk is all that a snapshot of a directory would hold.
func onDisk(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := []byte{}
		if d.Type().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		names := make([]byte, 1000)
		n, _ := unix.Llistxattr(path, names) // 0 where there are none
		all[path] = fmt.Sprintf("mode %o links %d owner %d:%d mtime %v ctime %v xattrs %q content %s",
			st.Mode, st.Nlink, st.Uid, st.Gid, st.Mtim, st.Ctim, names[:n], digest(content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// change is a call that changes something, in a directory of its own, so that the kernel lets each of them get to the mount.
type change struct {
	name string
	do   func(dir string, fd int) error // fd is the file f in dir, open for reading and writing
}

func changes() []change {
	f := func(dir string) string { return dir + "/f" }
	ignore := func(fd int, err error) error {
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
	return []change{
		{"write", func(_ string, fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 3); return err }},
		{"append", func(_ string, fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 9000); return err }},
		{"fallocate", func(_ string, fd int) error { return unix.Fallocate(fd, 0, 0, 20_000) }},
		{"punch", func(_ string, fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}},
		{"copy", func(_ string, fd int) error {
			to := int64(100_000)
			_, err := unix.CopyFileRange(fd, new(int64), fd, &to, 5000, 0)
			return err
		}},
		{"truncate", func(dir string, _ int) error { return unix.Truncate(f(dir), 10) }},
		{"open-trunc", func(dir string, _ int) error {
			return ignore(unix.Open(f(dir), unix.O_WRONLY|unix.O_TRUNC, 0))
		}},
		{"create", func(dir string, _ int) error {
			return ignore(unix.Open(dir+"/new", unix.O_WRONLY|unix.O_CREAT, 0o644))
		}},
		{"tmpfile", func(dir string, _ int) error { return ignore(unix.Open(dir, unix.O_WRONLY|unix.O_TMPFILE, 0o644)) }},
		{"mkdir", func(dir string, _ int) error { return unix.Mkdir(dir+"/d", 0o755) }},
		{"mknod", func(dir string, _ int) error { return unix.Mkfifo(dir+"/fifo", 0o644) }},
		{"symlink", func(dir string, _ int) error { return unix.Symlink("f", dir+"/l") }},
		{"link", func(dir string, _ int) error { return unix.Link(f(dir), dir+"/hard") }},
		{"rename", func(dir string, _ int) error { return unix.Rename(f(dir), dir+"/g") }},
		{"unlink", func(dir string, _ int) error { return unix.Unlink(f(dir)) }},
		{"rmdir", func(dir string, _ int) error { return unix.Rmdir(dir + "/sub") }},
		{"chmod", func(dir string, _ int) error { return unix.Chmod(f(dir), 0o600) }},
		{"utimens", func(dir string, _ int) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, f(dir), []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
		}},
		{"setxattr", func(dir string, _ int) error { return unix.Setxattr(f(dir), "user.x", []byte("y"), 0) }},
		{"removexattr", func(dir string, _ int) error { return unix.Removexattr(f(dir), "user.there") }},
	}
}

// TestFreezeHoldsChanges: whatever changes the ciphertext directory waits, and goes on after the thaw.
func TestFreezeHoldsChanges(t *testing.T) {
	r := newRig(t, Options{WriteThrough: true}, withSealDelay(time.Hour))
	all := changes()
	fds := make([]int, len(all))
	for i, c := range all {
		dir := r.path(c.name)
		if err := errors.Join(unix.Mkdir(dir, 0o755), unix.Mkdir(dir+"/sub", 0o755)); err != nil {
			t.Fatal(err)
		}
		r.write(c.name+"/f", pattern(1, 9000))
		if err := unix.Setxattr(dir+"/f", "user.there", []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
		var err error
		if fds[i], err = unix.Open(dir+"/f", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[i])
	}

	f := r.freeze()
	before := onDisk(t, r.cipher)
	var returned atomic.Int64
	var calls sync.WaitGroup
	for i, c := range all {
		calls.Go(func() {
			if err := c.do(r.path(c.name), fds[i]); err != nil {
				t.Errorf("%s, after the thaw: %v", c.name, err)
			}
			returned.Add(1)
		})
	}
	waitFor(t, "all changes to arrive", func() bool { return r.server.Held() == len(all) || returned.Load() > 0 })
	if returned.Load() > 0 {
		t.Error("a change did not wait")
	}

	if !maps.Equal(before, onDisk(t, r.cipher)) {
		t.Error("the ciphertext directory has changed while it was frozen")
	}
	if err := f.Thaw(); err != nil {
		t.Error(err)
	}
	calls.Wait()
	if maps.Equal(before, onDisk(t, r.cipher)) {
		t.Error("nothing has changed after the thaw")
	}
	r.want("write/f", append(append(pattern(1, 9000)[:3:3], 'x'), pattern(1, 9000)[4:]...))
}

// TestFreezeReadsGoOn: a frozen mount can be read, also where somebody waits to write, and files open for writing.
func TestFreezeReadsGoOn(t *testing.T) {
	r := newRig(t, Options{WriteThrough: true}, withSealDelay(time.Hour))
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("d/cold", pattern(1, 200_000))
	r.write("d/busy", pattern(2, 9000))
	r.remount()
	busy, err := os.OpenFile(r.path("d/busy"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	f := r.freeze()
	written := make(chan error, 1)
	go func() {
		_, err := busy.WriteAt([]byte("x"), 0)
		written <- err
	}()
	waitFor(t, "the write to arrive", func() bool { return r.server.Held() == 1 })

	r.want("d/cold", pattern(1, 200_000))
	if entries, err := os.ReadDir(r.path("d")); err != nil || len(entries) != 2 {
		t.Errorf("%v %v", entries, err)
	}
	if _, err := os.Stat(r.path("d/busy")); err != nil {
		t.Error(err)
	}
	more, err := os.OpenFile(r.path("d/cold"), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := more.Sync(); err != nil { // there is nothing to write
		t.Error(err)
	}
	if err := more.Close(); err != nil {
		t.Error(err)
	}
	if len(written) > 0 {
		t.Error("the write did not wait")
	}
	if err := f.Thaw(); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// TestFreezeSealsOpenFiles: what is open, is sealed with what was written, also by a map or into the kernel's cache; its times
// stay as they are; and it goes on being written after the thaw.
func TestFreezeSealsOpenFiles(t *testing.T) {
	for name, mode := range map[string]Options{"writeback": {}, "writethrough": {WriteThrough: true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mode, withSealDelay(time.Hour))
			long := longName('n', 230)
			r.write("closed", pattern(1, 5000))
			file, err := os.Create(r.path(long))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			gone, err := os.Create(r.path("gone"))
			if err != nil {
				t.Fatal(err)
			}
			defer gone.Close()
			content := pattern(2, 1_000_000)
			if _, err := file.Write(content); err != nil {
				t.Fatal(err)
			}
			if _, err := gone.Write(content); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(r.path("gone")); err != nil {
				t.Fatal(err)
			}
			before := look(t, r.path(long))
			tick()
			f := r.freeze()
			if f.Unsealed != 0 {
				t.Errorf("%d files are not sealed", f.Unsealed)
			}
			for _, name := range []string{"closed", long} {
				if !isSealed(t, r.stored(name)) {
					t.Errorf("%.10s is not sealed", name)
				}
			}
			copied := r.copyCiphertext()
			if after := look(t, r.path(long)); after != before {
				t.Errorf("the freeze shows: %+v, before %+v", after, before)
			}
			if err := f.Thaw(); err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt([]byte("more"), 1_000_000); err != nil {
				t.Fatal(err)
			}
			if err := file.Sync(); err != nil {
				t.Fatal(err)
			}
			if isSealed(t, r.stored(long)) {
				t.Error("still sealed although it was written again")
			}
			if err := errors.Join(file.Close(), gone.Close()); err != nil {
				t.Error(err)
			}
			r.remount()
			r.want(long, append(content, "more"...))
			if !isSealed(t, r.stored(long)) {
				t.Error("not sealed in the end")
			}
			copied.want(long, content)
			copied.want("closed", pattern(1, 5000))
		})
	}
}

// copyCiphertext copies the ciphertext directory, as a snapshot would, and mounts the copy.
func (r *rig) copyCiphertext() *rig {
	r.t.Helper()
	c := &rig{t: r.t, kr: r.kr, log: &logSink{}, opts: Options{ReadOnly: true}, open: volume.OpenOptions{SealDelay: time.Hour}}
	base := openTempDir(r.t)
	c.cipher, c.dir = filepath.Join(base, "cipher"), filepath.Join(base, "clear")
	if out, err := exec.Command("cp", "-a", r.cipher, c.cipher).CombinedOutput(); err != nil {
		r.t.Fatalf("cp: %v %s", err, out)
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	c.mount()
	r.t.Cleanup(c.unmount)
	return c
}

// counterPlaces are where a counter stands in its file: at the end of the first block and in a later one.
var counterPlaces = []int64{4088, 9000}

// count is a program that writes two counters in turn, each at two places, and syncs the one before it goes on to the other.
// So the second is never ahead of the first, and never behind by more than one. It runs until it is killed.
func count(dir string, args []string) error {
	var files [2]*os.File
	for i, which := range []string{"first", "second"} {
		var err error
		if files[i], err = os.Create(dir + "/" + which + args[0]); err != nil {
			return err
		}
	}
	for n := uint64(1); ; n++ {
		for _, f := range files {
			for _, at := range counterPlaces {
				if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, n), at); err != nil {
					return err
				}
			}
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
}

// counted reads what count has left: the lesser and the greater of the values at the two places.
func counted(t *testing.T, path string) (least, most uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var values []uint64
	for _, at := range counterPlaces {
		b := make([]byte, 8) // zeros where the file has no such place yet
		if _, err := f.ReadAt(b, at); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		values = append(values, binary.BigEndian.Uint64(b))
	}
	return slices.Min(values), slices.Max(values)
}

// save is a program that replaces a file again and again as an editor does. It runs until it is killed.
func save(dir string, _ []string) error {
	for n := 1; ; n++ {
		f, err := os.Create(dir + "/saved.tmp")
		if err != nil {
			return err
		}
		_, err = f.Write(saved(n))
		if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(dir+"/saved.tmp", dir+"/saved")); err != nil {
			return err
		}
	}
}

func saved(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%08d", n), 700) }

// TestFreezeUnderLoad copies the ciphertext directory while it is frozen and programs write: everything in the copy is sealed,
// opens, and is as the programs had it at one moment.
func TestFreezeUnderLoad(t *testing.T) {
	for name, mode := range map[string]Options{"writeback": {}, "writethrough": {WriteThrough: true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, mode)
			// Processes of their own: a program that starts another one waits for the pages of its files to be written.
			const pairs = 3
			r.load("save")
			for i := range pairs {
				r.load("count", strconv.Itoa(i))
			}
			var before uint64
			for range 3 {
				waitFor(t, "the programs to go on", func() bool {
					for i := range pairs {
						if _, err := os.Stat(r.path(fmt.Sprint("second", i))); err != nil {
							return false
						}
					}
					now, _ := counted(t, r.path("second0"))
					return now > before
				})
				f := r.freeze()
				still := onDisk(t, r.cipher)
				copied := r.copyCiphertext()
				if !maps.Equal(still, onDisk(t, r.cipher)) {
					t.Error("the ciphertext directory has changed while it was frozen")
				}
				if err := f.Thaw(); err != nil {
					t.Fatal(err)
				}
				copied.allSealed()
				for i := range pairs {
					least1, most1 := counted(t, copied.path(fmt.Sprint("first", i)))
					least2, most2 := counted(t, copied.path(fmt.Sprint("second", i)))
					if least1 < most2 || most1 > least2+1 {
						t.Errorf("counters %d to %d before %d to %d: no state that there was", least1, most1, least2, most2)
					}
				}
				before, _ = counted(t, copied.path("second0"))
				if content, err := os.ReadFile(copied.path("saved")); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				} else if n, _ := strconv.Atoi(string(content[:min(8, len(content))])); err == nil && !bytes.Equal(content, saved(n)) {
					t.Errorf("saved: %s", digest(content))
				}
			}
		})
	}
}

// load starts a program that runs until the test ends.
func (r *rig) load(task string, args ...string) {
	r.t.Helper()
	cmd := child(context.Background(), task, r.dir, args...)
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); cmd.ProcessState.Exited() {
			r.t.Errorf("%s has ended by itself: %v", task, err)
		}
	})
}

// allSealed checks every header of the ciphertext directory.
func (r *rig) allSealed() {
	r.t.Helper()
	files := 0
	err := filepath.WalkDir(r.cipher, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == volume.ConfigName {
			return err
		}
		info, err := volume.InspectFile(path)
		if err != nil {
			return err
		}
		if files++; info.Header != nil && !info.Header.Sealed {
			r.t.Errorf("%s is not sealed", path)
		}
		return nil
	})
	if err != nil || files == 0 {
		r.t.Errorf("%d files, %v", files, err)
	}
}

// TestFreezeEnds: by its limit, by the end of the mount, and once only.
func TestFreezeEnds(t *testing.T) {
	r := newRig(t, Options{WriteThrough: true})
	r.write("f", pattern(1, 5000))
	f, err := r.server.Freeze(t.Context(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	<-f.Done()
	if err := f.Thaw(); !errors.Is(err, ErrThawed) {
		t.Errorf("thawed after its limit: %v", err)
	}
	if r.log.count("thawed by itself") != 1 {
		t.Error("nothing is logged")
	}

	f = r.freeze()
	if r.server.Frozen() != f || r.server.OpenHandles() == 0 {
		t.Error("it does not count as in use")
	}
	if _, err := r.server.Freeze(t.Context(), 0); !errors.Is(err, ErrFrozen) {
		t.Errorf("frozen twice: %v", err)
	}
	if err := errors.Join(f.Thaw(), os.Remove(r.path("f"))); err != nil {
		t.Error(err)
	}
	if err := f.Thaw(); !errors.Is(err, ErrThawed) {
		t.Errorf("thawed twice: %v", err)
	}

	// A change that waits does not keep the mount from ending in order.
	r.freeze()
	made := make(chan error, 1)
	go func() { made <- os.Mkdir(r.path("d"), 0o755) }()
	waitFor(t, "the change to arrive", func() bool { return r.server.Held() == 1 })
	r.server.EndFreezing()
	if err := <-made; err != nil {
		t.Error(err)
	}
	if _, err := r.server.Freeze(t.Context(), 0); !errors.Is(err, ErrEnding) {
		t.Errorf("frozen although it is to end: %v", err)
	}
	r.remount()

	// Nor does a freeze in which nothing waits.
	r.freeze()
	r.remount()
	if _, err := os.Stat(r.path("d")); err != nil {
		t.Error(err)
	}
}

// TestFreezeFails: when the asker is gone or the disk fails, nothing is held.
func TestFreezeFails(t *testing.T) {
	broken := &failingCalls{}
	r := newRig(t, Options{WriteThrough: true}, withHook(broken), withSealDelay(time.Hour))
	r.write("f", pattern(1, 5000))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.server.Freeze(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for it: %v", err)
	}
	for _, op := range []backing.Op{backing.OpSync, backing.OpSyncFS} {
		broken.fails.Store(&op)
		if _, err := r.server.Freeze(t.Context(), 0); !errors.Is(err, unix.EIO) {
			t.Errorf("a sync fails: %v", err)
		}
		broken.fails.Store(nil)
		r.write("f", pattern(2, 5000)) // nothing is held
	}
	if r.server.Frozen() != nil {
		t.Error("frozen")
	}
	if err := r.freeze().Thaw(); err != nil {
		t.Error(err)
	}
}

// failingCalls lets the calls of one kind fail.
type failingCalls struct{ fails atomic.Pointer[backing.Op] }

func (h *failingCalls) Before(c *backing.Call) error {
	if op := h.fails.Load(); op != nil && *op == c.Op {
		return unix.EIO
	}
	return nil
}
