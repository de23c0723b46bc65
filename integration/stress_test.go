package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStress has 16 processes create, write, rename, link, truncate, remove and read self-describing files, each in a directory
// of its own, of which it knows every byte, and all in a shared one. After a remount everything is as before, and whole.
func TestStress(t *testing.T) {
	for name, flags := range map[string][]string{"writeback": nil, "writethrough": {"--cache", "writethrough"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.mountFlags = append(r.mountFlags, flags...)
			r.mount()
			for i := range sharedDirs {
				r.mkdir(r.path("shared", fmt.Sprint("d", i)))
			}
			var processes []*process
			steps := strconv.Itoa(soaking(60, 5000))
			for i := range 16 {
				processes = append(processes, startTask(t, "stress", r.mnt, strconv.Itoa(i), steps))
			}
			for _, p := range processes {
				p.ends(0)
			}
			if t.Failed() {
				return
			}
			want := snapshot(t, r.mnt)
			if len(want) < 50 {
				t.Errorf("only %d entries are left", len(want))
			}
			r.umount()
			r.whole(r.dir)
			r.mount()
			sameTree(t, want, snapshot(t, r.mnt))
			r.sh(`rm -r -- *`)
			r.umount()
			if left, err := os.ReadDir(r.dir); err != nil || len(left) != 1 {
				t.Errorf("left in the ciphertext directory: %v, %v", left, err)
			}
		})
	}
}

const sharedDirs = 2

// stressor is one of the processes.
type stressor struct {
	random *rand.Rand
	id     uint64
	serial uint64            // of the files that it has made
	own    string            // its own directory
	names  map[string]*owned // what is in there
	shared string
	seen   map[stamp]uint64 // the newest generation seen of each block of shared files
}

// owned is a file in the process's own directory, which may have several names.
type owned struct{ content []byte }

func stressTask(args []string) error {
	id, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	steps, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	s := &stressor{
		random: rand.New(rand.NewPCG(rand.Uint64(), id)), id: id, own: filepath.Join(args[0], "own-"+args[1]), names: map[string]*owned{},
		shared: filepath.Join(args[0], "shared"), seen: map[stamp]uint64{},
	}
	if err := os.Mkdir(s.own, 0o755); err != nil {
		return err
	}
	for i := range steps {
		if err := s.stepOwn(); err != nil {
			return fmt.Errorf("process %d, step %d in its own directory: %w", id, i, err)
		}
		if err := s.stepShared(); err != nil {
			return fmt.Errorf("process %d, step %d in the shared directory: %w", id, i, err)
		}
	}
	for name := range s.names {
		if err := s.readOwn(name); err != nil {
			return fmt.Errorf("process %d, in the end: %w", id, err)
		}
	}
	return nil
}

// name draws a name, some of them long.
func (s *stressor) name(names int) string {
	n := s.random.IntN(names)
	return fmt.Sprint("f", n, strings.Repeat("n", 100*(n%3)))
}

func (s *stressor) stepOwn() error {
	name, other := s.name(20), s.name(20)
	path, file := filepath.Join(s.own, name), s.names[name]
	if file == nil {
		return s.create(name)
	}
	switch s.random.IntN(9) {
	case 0, 1, 2:
		return s.writeOwn(path, file)
	case 3:
		size := s.random.IntN(20 * stampSize)
		grown := make([]byte, max(0, size-len(file.content)))
		file.content = append(file.content[:min(size, len(file.content))], grown...)
		return os.Truncate(path, int64(size))
	case 4:
		err := os.Rename(path, filepath.Join(s.own, other))
		if s.names[other] != file { // else nothing happens, as POSIX says
			delete(s.names, name)
			s.names[other] = file
		}
		return err
	case 5:
		err := os.Link(path, filepath.Join(s.own, other))
		if s.names[other] != nil && errors.Is(err, unix.EEXIST) {
			return nil
		}
		s.names[other] = file
		return err
	case 6:
		delete(s.names, name)
		return os.Remove(path)
	default:
		return s.readOwn(name)
	}
}

func (s *stressor) create(name string) error {
	s.serial++
	content := stamped(s.id<<32|s.serial, s.random.Uint64N(16), 1)
	s.names[name] = &owned{content}
	f, err := os.OpenFile(filepath.Join(s.own, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// writeOwn writes anywhere, also behind the end, and sometimes syncs.
func (s *stressor) writeOwn(path string, file *owned) error {
	data, at := make([]byte, 1+s.random.IntN(3*stampSize)), s.random.IntN(20*stampSize)
	for i := range data {
		data[i] = byte(s.random.Uint32())
	}
	if missing := at + len(data) - len(file.content); missing > 0 {
		file.content = append(file.content, make([]byte, missing)...)
	}
	copy(file.content[at:], data)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, int64(at))
	if s.random.IntN(8) == 0 {
		err = errors.Join(err, f.Sync())
	}
	return errors.Join(err, f.Close())
}

func (s *stressor) readOwn(name string) error {
	got, err := os.ReadFile(filepath.Join(s.own, name))
	want := s.names[name].content
	if err == nil && !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		err = fmt.Errorf("%.20s: %d bytes, want %d, and they differ at %d", name, len(got), len(want), at)
	}
	return err
}

// stepShared does something to a file that others use as well. That it is gone, or another one, is what they may do.
func (s *stressor) stepShared() (err error) {
	path := func() string {
		return filepath.Join(s.shared, fmt.Sprint("d", s.random.IntN(sharedDirs)), s.name(12))
	}
	switch s.random.IntN(10) {
	case 0, 1:
		err = s.publish(path())
	case 2, 3, 4:
		err = s.withShared(path(), s.writeShared)
	case 5:
		err = s.withShared(path(), s.cutShared)
	case 6:
		err = os.Link(path(), path())
	case 7:
		err = unix.Renameat2(unix.AT_FDCWD, path(), unix.AT_FDCWD, path(), uint(s.random.IntN(2))*unix.RENAME_EXCHANGE)
	case 8:
		err = os.Remove(path())
	default:
		err = s.withShared(path(), s.readShared)
		if err == nil {
			_, err = os.ReadDir(filepath.Join(s.shared, fmt.Sprint("d", s.random.IntN(sharedDirs))))
		}
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// publish makes a new file, out of sight, and gives it a name that others know. It has its first block for ever.
func (s *stressor) publish(path string) error {
	s.serial++
	content := stamped(s.id<<32|s.serial, 1+s.random.Uint64N(8), now())
	temporary := filepath.Join(s.shared, fmt.Sprintf("new-%x-%x", s.id, s.serial))
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close(), os.Rename(temporary, path))
}

// now is a time that goes on alike in all processes, and serves them as generation.
func now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // Linux always has this clock
	}
	return uint64(ts.Nano())
}

// withShared opens a file, finds out which one it is, and does something to it.
func (s *stressor) withShared(path string, do func(f *os.File, file uint64) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	first, err := s.readBlock(f, 0, 0)
	if err == nil && first.generation == 0 {
		err = errors.New("the first block is a hole")
	}
	if err == nil {
		err = do(f, first.file)
	}
	if err != nil {
		err = fmt.Errorf("%.20s: %w", filepath.Base(path), err)
	}
	return errors.Join(err, f.Close())
}

// locked does something while other processes keep away from a part of the file, or its whole rest if length is 0.
func locked(f *os.File, kind int16, at, length int64, do func() error) error {
	lock := unix.Flock_t{Type: kind, Start: at, Len: length}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &lock); err != nil {
		return err
	}
	err := do()
	lock.Type = unix.F_UNLCK
	return errors.Join(err, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock))
}

// readBlock reads a block of a file, of any if file is 0, and looks whether it says what it must.
func (s *stressor) readBlock(f *os.File, file, block uint64) (found stamp, err error) {
	err = locked(f, unix.F_RDLCK, int64(block)*stampSize, stampSize, func() error {
		found, err = s.look(f, file, block)
		return err
	})
	return found, err
}

// look is readBlock for who holds the lock. io.EOF says that the file is not so long.
func (s *stressor) look(f *os.File, file, block uint64) (found stamp, err error) {
	b := make([]byte, stampSize)
	if _, err := f.ReadAt(b, int64(block)*stampSize); err != nil {
		return found, err
	}
	if found, err = stampOf(b); err != nil {
		return found, fmt.Errorf("block %d: %w", block, err)
	}
	if found == (stamp{}) { // it was cut off, and what was there must not come back
		if file > 0 {
			s.seen[stamp{file, block, 0}] = now()
		}
		return found, nil
	}
	if found.block != block || file > 0 && found.file != file {
		return found, fmt.Errorf("block %d of file %x says: %+v", block, file, found)
	}
	key := stamp{found.file, block, 0}
	if found.generation < s.seen[key] {
		return found, fmt.Errorf("block %d of file %x was newer before: %d, now %d", block, file, s.seen[key], found.generation)
	}
	s.seen[key] = found.generation
	return found, nil
}

// writeShared writes a block, and looks at what was there before and after.
func (s *stressor) writeShared(f *os.File, file uint64) error {
	block := s.random.Uint64N(12)
	return locked(f, unix.F_WRLCK, int64(block)*stampSize, stampSize, func() error {
		if _, err := s.look(f, file, block); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		want := stamp{file, block, now()}
		if _, err := f.WriteAt(want.bytes(), int64(block)*stampSize); err != nil {
			return err
		}
		got, err := s.look(f, file, block)
		if err == nil && got != want {
			err = fmt.Errorf("wrote %+v, and then read %+v", want, got)
		}
		return err
	})
}

// cutShared makes the file longer or shorter, but leaves the first block.
func (s *stressor) cutShared(f *os.File, _ uint64) error {
	return locked(f, unix.F_WRLCK, stampSize, 0, func() error { return f.Truncate(int64(1+s.random.IntN(12)) * stampSize) })
}

func (s *stressor) readShared(f *os.File, file uint64) error {
	for block := uint64(0); ; block++ {
		if _, err := s.readBlock(f, file, block); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
