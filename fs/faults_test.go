package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// sweep is a Hook that counts the calls below while it is on and strikes at one of them.
type sweep struct {
	at    int // which call, from 1 on; 0: none
	errno unix.Errno
	short bool // the call moves half of its bytes instead, at first
	stays bool // all later calls that change something fail as well

	mu     sync.Mutex
	on     bool          // guarded by mu
	calls  int           // guarded by mu
	seen   []backing.Op  // guarded by mu
	struck *backing.Call // guarded by mu
	stack  []string      // functions that led to it; guarded by mu
}

func (s *sweep) Before(c *backing.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return nil
	}
	s.calls++
	s.seen = append(s.seen, c.Op)
	if s.calls < s.at || s.at == 0 || s.calls > s.at && !s.stays || s.stays && !changesSomething(c) {
		return nil
	}
	if s.struck != nil {
		return s.errno
	}
	if s.short && (c.Size < 2 || c.Op != backing.OpRead && c.Op != backing.OpWrite) {
		return nil // there is no such call
	}
	s.struck = &backing.Call{Op: c.Op, Name: c.Name, Offset: c.Offset, Size: c.Size}
	s.stack = functions()
	if s.short {
		c.Size /= 2
		return nil
	}
	return s.errno
}

// changesSomething tells calls that a disk refuses which has become read-only.
func changesSomething(c *backing.Call) bool {
	switch c.Op {
	case backing.OpStat, backing.OpAccess, backing.OpRead, backing.OpReaddir, backing.OpReadlink, backing.OpClose:
		return false
	case backing.OpOpen:
		return c.Flags&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT) != 0
	}
	return true
}

func (s *sweep) turn(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
}

func functions() (names []string) {
	pcs := make([]uintptr, 40)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs)])
	for {
		f, more := frames.Next()
		if _, name, ok := strings.Cut(f.Function, "envfs/envfs/"); ok {
			names = append(names, name)
		}
		if !more {
			return names
		}
	}
}

// silent are the functions in which a fault need not reach the application, and why.
var silent = map[string]string{
	"volume.(*prefetcher)":          "getting the keys of other files ahead of need",
	"fs.(*Server).dropCapabilities": "logged; the write itself goes on",
	"volume.(*Volume).DropFullName": "logged; what stays is swept away later",
	"fs.(*Server).link.func":        "closing a descriptor opened with O_PATH, which has nothing to report",
	"fs.(*Server).ReleaseDir":       "closedir(3) has returned, and the directory was only read",
	"volume.(*File).Release":        "close(2) has returned; the file stays unsealed",
	"volume.(*File).sealAndClose":   "likewise",
	"volume.(*sealer)":              "likewise",
	"volume.(*Volume).decodeLong":   "the entry is shown under its stored name",
	"fs.(*Server).announce":         "getting keys ahead of need",
	"fs.(*Server).GetXAttr":         "the kernel itself asks, for security.capability, and takes a failure for none",
	"fs.(*Server).Forget":           "the kernel waits for no answer",
	"fs.(*Server).Read":             "the kernel asks again, for each page",
}

// mustReport says whether the application must hear of the fault that was struck.
func (s *sweep) mustReport() bool {
	if s.short && s.struck.Op == backing.OpRead {
		return false // reading goes on behind it
	}
	if s.errno == unix.ESTALE {
		return false // the kernel tries again
	}
	if s.struck.Op == backing.OpSetattr || s.struck.Op == backing.OpStat {
		// The kernel writes times back by itself, and speaks of a failure at the next fsync.
		if slices.Contains(s.stack, "fs.(*Server).SetAttr") {
			return false
		}
	}
	noRoom := s.short || s.errno == unix.ENOSPC || s.errno == unix.EDQUOT
	if noRoom && slices.Contains(s.stack, "volume.(*journal).zero") {
		return false // the journal is made smaller
	}
	for _, function := range s.stack {
		for name := range silent {
			if strings.HasPrefix(function, name) {
				return false
			}
		}
	}
	return true
}

// TestEveryCallStruck runs a workload on a mount again and again, and each time another call below fails. The application
// must hear of it; what was there before stays readable; once the disk is well again everything works, without a remount and
// after one; and when all is deleted nothing is left, neither on disk nor of descriptors.
func TestEveryCallStruck(t *testing.T) {
	calm := &sweep{}
	strikeWorkload(t, calm)
	if t.Failed() {
		return
	}
	t.Logf("%d calls", calm.calls)
	for _, op := range []backing.Op{backing.OpClose, backing.OpAccess} {
		if !slices.Contains(calm.seen, op) {
			t.Errorf("the workload has no %s to strike", op)
		}
	}
	errnos := []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ESTALE, 0} // 0: a short read or write
	struck, tried := 0, 0
	for at := 1; at <= calm.calls; at++ {
		for i, errno := range errnos {
			if soaking(1) == 1 && (at+7*i)%19 != 0 {
				continue
			}
			s := &sweep{at: at, errno: errno, short: errno == 0}
			tried++
			if strikeWorkload(t, s); s.struck != nil {
				struck++
			}
		}
	}
	t.Logf("%d faults", struck)
	if struck < tried/3 {
		t.Errorf("only %d faults", struck)
	}
}

func strikeWorkload(t *testing.T, s *sweep) {
	before := descriptors(t)
	r := newRig(t, Options{WriteThrough: s.at%2 == 0}, smallDisk(t, "16m"), withHook(s))
	w := &workload{r: r, s: s}
	w.prepare()
	r.remount() // so that everything is cold
	s.turn(true)
	errs := w.work()
	if s.stays {
		w.endure(t)
	}
	s.turn(false)
	if s.struck == nil && len(errs) > 0 {
		t.Fatalf("without a fault: %v", errs)
	}
	where := ""
	if s.struck != nil {
		where = fmt.Sprintf("%s %q %d+%d (%v, short %t) in %s", s.struck.Op, s.struck.Name, s.struck.Offset, s.struck.Size, s.errno, s.short,
			strings.Join(s.stack, " < "))
		if len(errs) == 0 && s.mustReport() {
			t.Errorf("nobody heard of %s", where)
		}
	}
	w.check(t, where)
	if errs := w.again(); len(errs) > 0 {
		t.Errorf("after %s the work does not go on: %v", where, errs)
	}
	r.remount()
	w.check(t, "the remount after "+where)
	w.clear(t, where)
	r.unmount()
	for fd, path := range descriptors(t) {
		if before[fd] != path && strings.Contains(path, r.cipher) {
			t.Errorf("after %s %s is still open", where, path)
		}
	}
}

// endure reads everything while the disk refuses changes, ends the mount, and mounts when the disk is well again.
func (w *workload) endure(t *testing.T) {
	t.Helper()
	s := w.s
	w.check(t, fmt.Sprintf("call %d, while all changes fail by %v,", s.at, s.errno))
	if err := w.r.server.Unmount(); err != nil {
		t.Fatalf("after call %d all changes failed by %v, and the mount does not end: %v", s.at, s.errno, err)
	}
	_, _ = w.r.server.Wait(), w.r.vol.Close() // they may speak of what failed
	w.r.server = nil
	s.turn(false)
	w.r.mount()
}

// TestDiskStaysBroken is TestEveryCallStruck with a disk that refuses every change from some call on, as one does that has
// become read-only after an error: what is there stays readable, and the mount ends.
func TestDiskStaysBroken(t *testing.T) {
	calm := &sweep{}
	strikeWorkload(t, calm)
	for i, errno := range []unix.Errno{unix.EROFS, unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.ESTALE} {
		step := calm.calls / soaking(3)
		for at := 1 + i; at <= calm.calls && !t.Failed(); at += max(step, 1) {
			strikeWorkload(t, &sweep{at: at, errno: errno, stays: true})
		}
	}
}

// descriptors says where each open descriptor leads.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, e := range entries {
		if path, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil { // that of the list itself is closed
			open[e.Name()] = path
		}
	}
	return open
}

// workload is what an application does to a directory, and what may be in it afterwards.
type workload struct {
	r *rig
	s *sweep
}

// kept are the files that are there before. What the work makes of the content of each; nil if it does not touch it.
var kept = map[string]func(old []byte) []byte{
	"read": nil, "linked": nil, "moved": nil, "x": nil, "y": nil, "attributes": nil, "source": nil, "dir/inside": nil,
	longName('k', 250): nil,
	"victim":           func([]byte) []byte { return pattern(4, 7777) },
	"over": func(old []byte) []byte {
		copy(old[5000:], pattern(1, 9000))
		return old
	},
	"grow":    func(old []byte) []byte { return append(old, pattern(2, 3*block)...) },
	"cut":     func(old []byte) []byte { return old[:5000] },
	"stretch": func(old []byte) []byte { return append(old, make([]byte, 50_000-len(old))...) },
	"punched": func(old []byte) []byte {
		clear(old[3000:11_000])
		return old
	},
}

func oldContent(name string) []byte { return pattern(uint64(len(name)+int(name[0])), 20_000+len(name)) }

func (w *workload) prepare() {
	w.r.t.Helper()
	if err := os.Mkdir(w.r.path("dir"), 0o755); err != nil {
		w.r.t.Fatal(err)
	}
	for name := range kept {
		w.r.write(name, oldContent(name))
	}
	w.r.write("replacing", pattern(4, 7777))
	w.r.write("gone", pattern(3, 100))
}

// steps are what the application does, one after the other, whatever happens.
func (w *workload) steps() []func() error {
	p := w.r.path
	return []func() error{
		func() error { return w.readsAs("read", oldContent("read")) },
		func() error { return w.changeFile("new", unix.O_CREAT|unix.O_EXCL, pattern(5, 10_000), 0) },
		func() error { return w.changeFile(longName('n', 240), unix.O_CREAT|unix.O_EXCL, pattern(6, 100), 0) },
		func() error { return w.changeFile("over", 0, pattern(1, 9000), 5000) },
		func() error { return w.changeFile("grow", 0, pattern(2, 3*block), int64(len(oldContent("grow")))) },
		func() error { return unix.Truncate(p("cut"), 5000) },
		func() error { return unix.Truncate(p("stretch"), 50_000) },
		func() error {
			return w.with("punched", func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 3000, 8000)
			})
		},
		func() error { return unix.Mkdir(p(longName('d', 240)), 0o755) },
		func() error { return unix.Symlink("target", p("symlink")) },
		func() error {
			target, err := os.Readlink(p("symlink"))
			if err == nil && target != "target" {
				err = errors.New("another target")
			}
			return err
		},
		func() error { return unix.Mknod(p("fifo"), unix.S_IFIFO|0o644, 0) },
		func() error { return unix.Link(p("linked"), p("linked-2")) },
		func() error { return unix.Rename(p("moved"), p(longName('m', 240))) },
		func() error { return unix.Rename(p("replacing"), p("victim")) },
		func() error {
			return unix.Renameat2(unix.AT_FDCWD, p("x"), unix.AT_FDCWD, p("y"), unix.RENAME_EXCHANGE)
		},
		func() error {
			return w.with("gone", func(fd int) error {
				if err := unix.Unlink(p("gone")); err != nil {
					return err
				}
				return errors.Join(writeAll(fd, pattern(7, 6000), 50), unix.Fsync(fd))
			})
		},
		func() error { return unix.Setxattr(p("attributes"), "user.a", pattern(8, 50), 0) },
		func() error { _, err := unix.Getxattr(p("attributes"), "user.a", make([]byte, 100)); return err },
		func() error { return unix.Chmod(p("attributes"), 0o600) },
		func() error { return unix.Lchown(p("attributes"), 1, 2) },
		func() error { return os.Chtimes(p("attributes"), time.Unix(oldTime, 0), time.Unix(oldTime, 0)) },
		func() error { return unix.Access(p("read"), unix.R_OK) },
		func() error { _, err := os.ReadDir(p("dir")); return err },
		func() error {
			fd, err := unix.Open(p("."), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return err
			}
			err = errors.Join(writeAll(fd, pattern(9, 5000), 0), unix.Fsync(fd))
			if err == nil {
				err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p("nameless"), unix.AT_SYMLINK_FOLLOW)
			}
			return errors.Join(err, unix.Close(fd))
		},
		func() error { return unix.Unlink(p("new")) },
		func() error { return unix.Rmdir(p(longName('d', 240))) },
	}
}

func (w *workload) work() (errs []error) {
	for i, step := range w.steps() {
		if err := step(); err != nil {
			errs = append(errs, fmt.Errorf("step %d: %w", i, err))
		}
	}
	return errs
}

func (w *workload) with(name string, f func(fd int) error) error {
	fd, err := unix.Open(w.r.path(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(f(fd), unix.Close(fd))
}

func (w *workload) changeFile(name string, flags int, data []byte, off int64) error {
	fd, err := unix.Open(w.r.path(name), unix.O_RDWR|unix.O_CLOEXEC|flags, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(writeAll(fd, data, off), unix.Fsync(fd), unix.Close(fd))
}

// writeAll takes a short write for what it is: the news that the rest failed.
func writeAll(fd int, data []byte, off int64) error {
	n, err := unix.Pwrite(fd, data, off)
	if err == nil && n < len(data) {
		err = errors.New("a short write")
	}
	return err
}

func (w *workload) readsAs(name string, want []byte) error {
	got, err := os.ReadFile(w.r.path(name))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s reads as %s", name, digest(got))
	}
	return err
}

// check reads everything that was there before. Whatever failed, each block is as it was or as it was to become.
func (w *workload) check(t *testing.T, where string) {
	t.Helper()
	for name, change := range kept {
		old, content := oldContent(name), oldContent(name)
		if change != nil {
			content = change(content)
		}
		at := []string{name}
		switch name {
		case "moved":
			at = []string{name, longName('m', 240)}
		case "x":
			at = []string{"x", "y"}
		case "y":
			at = []string{"y", "x"}
		}
		var got []byte
		var err error
		for _, place := range at {
			if got, err = os.ReadFile(w.r.path(place)); err == nil && (len(got) == len(old) || len(at) == 1) {
				break
			}
		}
		if err != nil {
			t.Errorf("after %s %s: %v", where, shorten(name), err)
		} else if !oldOrNew(got, old, content) && (len(at) == 1 || !oldOrNew(got, oldContent(at[1]), oldContent(at[1]))) {
			t.Errorf("after %s %s holds %s", where, shorten(name), digest(got))
		}
	}
}

// oldOrNew reports whether each block is the old or the new one, and the length in between or the one or the other.
func oldOrNew(got, old, content []byte) bool {
	if len(got) < min(len(old), len(content)) || len(got) > max(len(old), len(content)) {
		return false
	}
	part := func(b []byte, from, to int) []byte {
		p := make([]byte, to-from)
		copy(p, b[min(from, len(b)):min(to, len(b))])
		return p
	}
	for at := 0; at < len(got); at += block {
		end := min(at+block, len(got))
		if !bytes.Equal(got[at:end], part(old, at, end)) && !bytes.Equal(got[at:end], part(content, at, end)) {
			return false
		}
	}
	return true
}

// again uses every file that is there once more, and makes a new one: no lock may be held. The first fsync of a file may speak
// of what failed before.
func (w *workload) again() (errs []error) {
	for name := range kept {
		old, err := os.ReadFile(w.r.path(name))
		if errors.Is(err, unix.ENOENT) && name == "moved" {
			continue
		}
		if err == nil && w.use(name, old) != nil {
			err = w.use(name, old)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", shorten(name), err))
		}
	}
	if err := w.changeFile(longName('z', 255), unix.O_CREAT|unix.O_EXCL, pattern(1, 9000), 0); err != nil {
		errs = append(errs, err)
	}
	return errs
}

// use makes a file longer and shorter again.
func (w *workload) use(name string, old []byte) error {
	longer := append(bytes.Clone(old), "more"...)
	if err := w.changeFile(name, 0, longer, 0); err != nil {
		return err
	}
	if err := w.readsAs(name, longer); err != nil {
		return err
	}
	if err := unix.Truncate(w.r.path(name), int64(len(old))); err != nil {
		return err
	}
	return w.readsAs(name, old)
}

// clear deletes everything; then the ciphertext directory must be empty, too.
func (w *workload) clear(t *testing.T, where string) {
	t.Helper()
	entries, err := os.ReadDir(w.r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(w.r.dir, e.Name())); err != nil {
			t.Errorf("after %s: %v", where, err)
		}
	}
	left := storedNames(t, w.r.cipher)
	if w.s.stays || slices.Contains(w.s.stack, "volume.(*Volume).DropFullName") { // which could not remove one
		left = slices.DeleteFunc(left, crypto.IsSidecar)
	}
	if len(left) != 1 {
		t.Errorf("after %s there is left %q", where, left)
	}
}
