package volume

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// faults makes the calls of one kind fail once armed, or one call fail or be short.
type faults struct {
	mu    sync.Mutex
	op    backing.Op
	err   error
	after int                         // calls of that kind that still succeed
	once  func(c *backing.Call) error // takes the place of the rest for one call
}

func (f *faults) arm(op backing.Op, after int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.op, f.err, f.after, f.once = op, err, after, nil
}

func (f *faults) Before(c *backing.Call) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.once != nil {
		return f.once(c)
	}
	if f.op == "" || c.Op != f.op {
		return nil
	}
	if f.after > 0 {
		f.after--
		return nil
	}
	return f.err
}

// TestFailedWriteKeepsWhatWasThere fails growing writes in every way, and expects the file to be as it was.
func TestFailedWriteKeepsWhatWasThere(t *testing.T) {
	for _, size := range []int64{0, 10, block - 1, block, block + 100, 3*block + 7} {
		for _, grow := range []int64{1, 50, block, 2*block + 3} {
			for _, gap := range []int64{0, 1, 5 * block} {
				for _, c := range []struct {
					name  string
					err   error
					short int64
				}{{"ENOSPC", unix.ENOSPC, 0}, {"EIO", unix.EIO, 0}, {"short 1", nil, 1}, {"short 4000", nil, 4000}, {"short 9000", nil, 9000}} {
					if grow < block && c.short > grow {
						continue // not short for this write
					}
					t.Run(fmt.Sprintf("%d+%d+%d %s", size, gap, grow, c.name), func(t *testing.T) {
						failGrowth(t, size, gap, grow, c.err, c.short)
					})
				}
			}
		}
	}
}

func failGrowth(t *testing.T, size, gap, grow int64, err error, short int64) {
	r := newFileRig(t)
	want := pattern(7, size)
	r.write("f", want)
	hook := &faults{}
	r.reopen(&backing.Store{Hook: hook})
	f := r.load("f", true)
	// The header is unsealed first, which is not what is to fail here.
	if uerr := f.unseal(); uerr != nil {
		t.Fatal(uerr)
	}
	hook.failOnce(backing.OpWrite, err, short)
	_, werr := f.WriteAt(pattern(8, grow), size+gap)
	hook.arm("", 0, nil)
	if werr == nil {
		t.Skip("the fault did not hit a call of this write") // shorter than the fault
	}
	if short > 0 && !errors.Is(werr, unix.ENOSPC) || err != nil && !errors.Is(werr, err) {
		t.Errorf("error %v", werr)
	}
	if got := readAll(t, f); !bytes.Equal(got, want) {
		t.Errorf("after the failed write the file has %d bytes, and they are not those from before", len(got))
	}
	if _, err := f.WriteAt([]byte("more"), f.Size()); err != nil {
		t.Errorf("the next write: %v", err)
	}
	f.Release()
	r.reopen(&backing.Store{})
	f = r.load("f", false)
	defer f.Release()
	if got := readAll(t, f); !bytes.Equal(got, append(want, "more"...)) {
		t.Error("after the file was opened again it differs")
	}
}

// failOnce makes the next call of a kind fail, or be short, and no other.
func (f *faults) failOnce(op backing.Op, err error, short int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.once = func(c *backing.Call) error {
		if c.Op != op {
			return nil
		}
		f.once = nil
		if short > 0 {
			c.Size = min(c.Size, short)
			return nil
		}
		return err
	}
}

// TestFailedOverwriteFinishesItsBlock: a short write in place must not leave half a block.
func TestFailedOverwriteFinishesItsBlock(t *testing.T) {
	r := newFileRig(t)
	want := pattern(1, 10*block)
	r.write("f", want)
	hook := &faults{}
	r.reopen(&backing.Store{Hook: hook})
	f := r.load("f", true)
	defer f.Release()
	if err := f.unseal(); err != nil {
		t.Fatal(err)
	}
	hook.failOnce(backing.OpWrite, nil, crypto.CipherBlockSize+100)
	if _, err := f.WriteAt(pattern(2, 5*block), 2*block); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("error %v", err)
	}
	if got := readAll(t, f); len(got) != len(want) {
		t.Errorf("%d bytes readable, want %d", len(got), len(want))
	}
}

// TestFailedResizeKeepsWhatWasThere fails each call of a change of size.
func TestFailedResizeKeepsWhatWasThere(t *testing.T) {
	const size = 3*block + 100
	for _, to := range []int64{1, block - 1, block, block + 1, 3*block + 99, 3*block + 101, 4 * block, 9*block + 5} {
		for _, op := range []backing.Op{backing.OpWrite, backing.OpTruncate} {
			r := newFileRig(t)
			want := pattern(1, size)
			r.write("f", want)
			hook := &faults{}
			r.reopen(&backing.Store{Hook: hook})
			f := r.load("f", true)
			if err := f.unseal(); err != nil {
				t.Fatal(err)
			}
			hook.failOnce(op, unix.EIO, 0)
			err := f.Truncate(to)
			hook.arm("", 0, nil)
			if err == nil && !(op == backing.OpWrite && to%block == 0) {
				t.Errorf("to %d, %s: no error", to, op)
			}
			if got := readAll(t, f); err != nil && !bytes.Equal(got, want) {
				t.Errorf("to %d, %s: the file has %d bytes, and they are not those from before", to, op, len(got))
			}
			f.Release()
		}
	}
}

// TestFailedFirstWriteLeavesAnEmptyFile fails each call of the first write to a new file.
func TestFailedFirstWriteLeavesAnEmptyFile(t *testing.T) {
	for n := range 2 {
		r := newFileRig(t)
		hook := &faults{}
		r.reopen(&backing.Store{Hook: hook})
		f := r.create("f")
		hook.arm(backing.OpWrite, n, unix.ENOSPC)
		if _, err := f.WriteAt([]byte("data"), 0); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("call %d: %v", n, err)
		}
		hook.arm("", 0, nil)
		if f.Size() != 0 {
			t.Errorf("call %d: size %d", n, f.Size())
		}
		f.Release()
		r.reopen(&backing.Store{})
		f = r.load("f", false)
		if got := readAll(t, f); len(got) != 0 {
			t.Errorf("call %d: %d bytes", n, len(got))
		}
		f.Release()
	}
}

// TestFailedSyncStaysUnsealed: a seal vouches for data, so without a sync there is none.
func TestFailedSyncStaysUnsealed(t *testing.T) {
	for _, files := range []int{1, sealEach + 1} {
		r := newFileRig(t)
		hook := &faults{}
		r.reopen(&backing.Store{Hook: hook})
		for i := range files {
			f := r.create(fmt.Sprint("f", i))
			if _, err := f.WriteAt([]byte("data"), 0); err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		op := backing.OpSync
		if files > sealEach {
			op = backing.OpSyncFS
		}
		hook.arm(op, 0, unix.EIO)
		if err := r.vol.SealAll(); !errors.Is(err, unix.EIO) {
			t.Errorf("%d files: SealAll returned %v", files, err)
		}
		hook.arm("", 0, nil)
		if h := onDisk(t, r.path("f0")); h.Flags&crypto.FlagSealed != 0 {
			t.Errorf("%d files: sealed although the data was not synced", files)
		}
		f := r.load("f0", false)
		if got := readAll(t, f); string(got) != "data" {
			t.Errorf("%d files: read %q", files, got)
		}
		f.Release()
	}
}
