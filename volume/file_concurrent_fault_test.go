package volume

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// hookFunc is a Hook of one function.
type hookFunc func(c *backing.Call) error

func (f hookFunc) Before(c *backing.Call) error { return f(c) }

// TestFailedGrowthUnderAnother fails a write that makes the file longer while another one makes it longer still. The kernel
// writes back its pages that way. What the file held before, and what the other write stored, must stay readable.
func TestFailedGrowthUnderAnother(t *testing.T) {
	for _, c := range []struct {
		name       string
		size, edge int64 // the file's size, and where the first write ends and the second begins
		gap        int64 // or somewhat behind that
		short      int64 // the first write stores this much before it fails
	}{
		{"behind a last block in part", 100, 2 * block, 0, 0},
		{"behind a last block in part, with a gap", 100, 2 * block, 3 * block, 0},
		{"behind a whole block", block, 3 * block, 0, 0},
		{"a block is cut", block, 4 * block, 0, 6000},
		{"a block is cut behind a last block in part", 100, 4 * block, 0, 6000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFileRig(t)
				old, second := pattern(1, c.size), pattern(3, 3*block)
				r.write("f", old)
				var f *File
				var armed atomic.Bool
				done := make(chan error, 1)
				full := false
				r.reopen(&backing.Store{Hook: hookFunc(func(call *backing.Call) error {
					if call.Op != backing.OpWrite || nameBehind(call.FD) != "f" {
						return nil
					}
					if full { // the disk is, where the first write goes
						full = false
						return unix.ENOSPC
					}
					if !armed.CompareAndSwap(true, false) {
						return nil
					}
					go func() {
						_, err := f.WriteAt(second, c.edge+c.gap)
						done <- err
					}()
					synctest.Wait() // the second write has ended, or waits for the first
					if c.short == 0 {
						return unix.ENOSPC
					}
					call.Size, full = c.short, true
					return nil
				})})
				f = r.load("f", true)
				if err := f.unseal(); err != nil {
					t.Fatal(err)
				}
				armed.Store(true)
				if _, err := f.WriteAt(pattern(2, c.edge-c.size), c.size); !errors.Is(err, unix.ENOSPC) {
					t.Errorf("the first write: %v", err)
				}
				if err := <-done; err != nil {
					t.Errorf("the second write: %v", err)
				}
				f.Release()
				r.reopen(&backing.Store{})
				f = r.load("f", false)
				defer f.Release()
				got, err := contentOf(f)
				if err != nil {
					t.Fatalf("%d bytes, then %v", len(got), err)
				}
				if !bytes.Equal(got[:c.size], old) {
					t.Error("what the file held is gone")
				}
				if !bytes.Equal(got[c.edge+c.gap:], second) {
					t.Error("what the second write stored is gone")
				}
			})
		})
	}
}

// TestCutInAHole lets the disk fill up in the middle of a block that was a hole.
func TestCutInAHole(t *testing.T) {
	for _, short := range []int64{1, 4096, block + 100} {
		r := newFileRig(t)
		full := 0
		r.reopen(&backing.Store{Hook: hookFunc(func(c *backing.Call) error {
			switch {
			case c.Op != backing.OpWrite || full == 0:
				return nil
			case full == 2:
				full--
				c.Size = min(c.Size, short)
				return nil
			}
			return unix.ENOSPC
		})})
		f := r.create("f")
		if err := f.Truncate(10 * block); err != nil {
			t.Fatal(err)
		}
		full = 2
		if _, err := f.WriteAt(pattern(1, 3*block), 4*block); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%d bytes: the write: %v", short, err)
		}
		full = 0
		f.Release()
		r.reopen(&backing.Store{})
		f = r.load("f", false)
		got, err := contentOf(f)
		if err != nil || len(got) != 10*block {
			t.Errorf("%d bytes: read %d, %v", short, len(got), err)
		}
		f.Release()
	}
}
