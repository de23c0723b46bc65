package fs

import (
	"os"
	"sync"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// recorder writes down the calls below that change something or make it durable, with the inode that they concern.
type recorder struct {
	mu    sync.Mutex
	calls []recorded // guarded by mu
}

type recorded struct {
	op  backing.Op
	ino uint64
}

func (r *recorder) Before(c *backing.Call) error {
	if c.Op != backing.OpWrite && c.Op != backing.OpSync && c.Op != backing.OpSyncFS {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.FD, &st); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, recorded{c.Op, st.Ino})
	return nil
}

// since returns the calls on an inode since the last call of since, in their order.
func (r *recorder) since(ino uint64) (ops []backing.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c.ino == ino {
			ops = append(ops, c.op)
		}
	}
	r.calls = nil
	return ops
}

// TestSyncReachesTheDisk: whatever asks for durability must end in a sync of the backing file or directory, after the data.
func TestSyncReachesTheDisk(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags int
		call  func(fd int) error
	}{
		{"fsync", 0, unix.Fsync},
		{"fdatasync", 0, unix.Fdatasync},
		{"O_SYNC", unix.O_SYNC, func(int) error { return nil }},
		{"O_DSYNC", unix.O_DSYNC, func(int) error { return nil }},
		{"RWF_DSYNC", 0, func(fd int) error {
			_, err := unix.Pwritev2(fd, [][]byte{[]byte("more")}, 10000, unix.RWF_DSYNC)
			return err
		}},
		{"msync", 0, nil},
	} {
		for _, mode := range []Options{{}, {WriteThrough: true}} {
			t.Run(c.name, func(t *testing.T) {
				rec := &recorder{}
				r := newRig(t, mode, withHook(rec))
				r.write("f", pattern(1, 5000))
				r.seal()
				fd, err := unix.Open(r.path("f"), unix.O_RDWR|unix.O_CLOEXEC|c.flags, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); err != nil {
					t.Fatal(err)
				}
				rec.since(st.Ino)
				if _, err := unix.Pwrite(fd, pattern(2, 9000), 100); err != nil {
					t.Fatal(err)
				}
				if c.call != nil {
					err = c.call(fd)
				} else {
					err = child(t.Context(), "msync", r.path("f")).Run()
				}
				if err != nil {
					t.Fatal(err)
				}
				// The header is unsealed and synced, then the data, which must be followed by a sync of its own.
				ops := rec.since(st.Ino)
				if len(ops) < 4 || ops[len(ops)-1] != backing.OpSync || ops[len(ops)-2] != backing.OpWrite {
					t.Errorf("calls on the backing file: %v", ops)
				}
			})
		}
	}
}

// mapAndSync is another process that maps the file, changes it and asks for durability.
func mapAndSync(path string, _ []string) error {
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 5000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[4500] ^= 1
	return unix.Msync(m, unix.MS_SYNC)
}

func TestSyncOfDirectoryReachesTheDisk(t *testing.T) {
	rec := &recorder{}
	r := newRig(t, Options{}, withHook(rec))
	if err := os.Mkdir(r.path("d"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.write("d/f", nil)
	d, err := os.Open(r.path("d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(int) error{"fsync": unix.Fsync, "fdatasync": unix.Fdatasync} {
		rec.since(st.Ino)
		if err := call(int(d.Fd())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ops := rec.since(st.Ino); len(ops) != 1 || ops[0] != backing.OpSync {
			t.Errorf("%s: calls on the backing directory: %v", name, ops)
		}
	}
}

// TestSyncfsWritesBack: the kernel does not hand syncfs(2) on to a FUSE server, and does not wait, but it starts to write back
// what it holds.
func TestSyncfsWritesBack(t *testing.T) {
	rec := &recorder{}
	r := newRig(t, Options{}, withHook(rec))
	f, err := os.Create(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(pattern(1, 100_000)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	rec.since(st.Ino)
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "pages to be written back", func() bool { return len(rec.since(st.Ino)) > 0 })
}

func TestSyncFileRangeWritesBack(t *testing.T) {
	rec := &recorder{}
	r := newRig(t, Options{}, withHook(rec))
	f, err := os.Create(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(pattern(1, 100_000)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	flags := unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(int(f.Fd()), 0, 100_000, flags); err != nil {
		t.Fatal(err)
	}
	if ops := rec.since(st.Ino); len(ops) == 0 {
		t.Error("nothing was written back")
	}
}
