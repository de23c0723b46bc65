package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// kills is how often TestKilledUnderLoad kills the daemon; ENVFS_KILLS asks for more.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("ENVFS_KILLS")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("ENVFS_KILLS: %q is no number of kills", text)
	}
	return n
}

// TestKilledUnderLoad kills the daemon again and again while programs write, and mounts again at once, with nothing in between.
// What was synced reads back exactly, and with --cache=writethrough all that write(2) has taken. Whatever is left opens.
func TestKilledUnderLoad(t *testing.T) {
	for _, cache := range []string{"writeback", "writethrough"} {
		t.Run(cache, func(t *testing.T) {
			r := newRig(t)
			r.mount("--cache", cache)
			rnd := rand.New(rand.NewPCG(1, uint64(len(cache))))
			journals := make([]*journalist, 4)
			for i := range journals {
				journals[i] = newJournalist(t, r.path(fmt.Sprintf("log-%d", i)), cache == "writethrough", uint64(i))
			}
			saver := &saver{path: r.path("saved")}
			for n := range kills(t) {
				r.killUnder(int64(20+rnd.IntN(200)), journals, saver)
				r.mount("--cache", cache)
				for _, j := range journals {
					j.check(t, n)
				}
				saver.check(t, n)
			}
			r.umount()
		})
	}
}

// killUnder lets all writers work until they have made a number of steps together, and kills the daemon in the midst of them.
func (r *rig) killUnder(steps int64, journals []*journalist, s *saver) {
	r.t.Helper()
	var done atomic.Int64
	var writers sync.WaitGroup
	for _, j := range journals {
		writers.Go(func() { j.write(&done) })
	}
	writers.Go(func() { s.write(&done) })
	r.until("some work", func() bool { return done.Load() >= steps })
	if err := syscall.Kill(r.pid, syscall.SIGKILL); err != nil {
		r.t.Fatal(err)
	}
	writers.Wait() // each ends with the first call that fails
	r.gone(r.pid)
}

// isGone reports whether an error is what a mount without its daemon answers.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EIO)
}

// journalist appends to a file and syncs it from time to time.
type journalist struct {
	path         string
	writethrough bool
	rnd          *rand.Rand
	content      []byte // as it was handed to write(2)
	promised     int    // bytes of it that must be there
	err          error
}

func newJournalist(t *testing.T, path string, writethrough bool, seed uint64) *journalist {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return &journalist{path: path, writethrough: writethrough, rnd: rand.New(rand.NewPCG(seed, 3))}
}

func (j *journalist) write(done *atomic.Int64) {
	f, err := os.OpenFile(j.path, os.O_WRONLY, 0)
	if err != nil {
		j.err = err
		return
	}
	defer f.Close() // of a file system that is gone by then
	for {
		record := noise(1+j.rnd.IntN(9000), j.rnd.Uint64())
		off := int64(len(j.content))
		j.content = append(j.content, record...)
		if _, err := f.WriteAt(record, off); err != nil {
			j.err = err
			return
		}
		if j.writethrough {
			j.promised = len(j.content)
		}
		if j.rnd.IntN(3) == 0 {
			if err := f.Sync(); err != nil {
				j.err = err
				return
			}
			j.promised = len(j.content)
		}
		done.Add(1)
	}
}

// check reads the file, and goes on with what is there.
func (j *journalist) check(t *testing.T, kill int) {
	t.Helper()
	if !isGone(j.err) {
		t.Errorf("kill %d: the writer ended with %v", kill, j.err)
	}
	got, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatalf("kill %d: %v", kill, err)
	}
	if len(got) < j.promised || !bytes.Equal(got[:j.promised], j.content[:j.promised]) {
		t.Errorf("kill %d: %s has %d bytes, or others than the %d that were promised", kill, j.path, len(got), j.promised)
	}
	j.content = got
}

// saver replaces a file as an editor does; its content is a number that grows.
type saver struct {
	path     string
	number   int // of the save under way
	promised int // of the last that was durable, name and all
	err      error
}

func (s *saver) write(done *atomic.Int64) {
	for {
		s.number++
		if s.err = saveSynced(s.path, strconv.Itoa(s.number)); s.err != nil {
			return
		}
		s.promised = s.number
		done.Add(1)
	}
}

func (s *saver) check(t *testing.T, kill int) {
	t.Helper()
	if !isGone(s.err) {
		t.Errorf("kill %d: saving ended with %v", kill, s.err)
	}
	if s.promised == 0 {
		return
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatalf("kill %d: %v", kill, err)
	}
	if n, err := strconv.Atoi(string(text)); err != nil || n < s.promised || n > s.number {
		t.Errorf("kill %d: save %q is there, not %d to %d", kill, text, s.promised, s.number)
	}
}
