package volume

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

const (
	// verifyLooks is how often a file that changes while it is read is looked at before it is given up.
	verifyLooks = 6
	// verifyPause is the time between two looks: long against the time that a mount takes to change a block or a header.
	verifyPause = 50 * time.Millisecond
)

// file opens a file, verifies its attributes, and hands it to a goroutine of its own. A file with several names is verified
// once.
func (w *verify) file(e treeEntry) {
	fd, _, err := openForLook(w.store, e.dir, e.name)
	if err != nil {
		if !backing.IsNotExist(err) {
			w.unreadable(e.rel, err)
		}
		return
	}
	var st unix.Stat_t
	err = w.store.Stat(fd, &st)
	switch {
	case err != nil:
		w.unreadable(e.rel, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG: // exchanged since it was listed
		w.found(aboutFile(ErrFileChanged).at(e.rel))
	case !w.firstName(e.rel, &st):
		w.count.done.Add(st.Size)
	default:
		w.count.files.Add(1)
		w.attributes(backing.Target{FD: fd}, e)
		if w.launch(e.rel, fd) {
			return
		}
	}
	_ = w.store.Close(fd) // only read
}

// firstName notes a name of a file, and reports whether it is the first one found.
func (w *verify) firstName(rel string, st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return true
	}
	key := FileKey{Dev: uint64(st.Dev), Ino: st.Ino}
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.links[key]
	if f == nil {
		w.links[key] = &linkedFile{names: []string{rel}}
		return true
	}
	f.names = append(f.names, rel)
	return false
}

// launch verifies what fd is open on in a goroutine, which closes it, once there is room for one more. It reports false
// if the work has ended.
func (w *verify) launch(rel string, fd int) bool {
	select {
	case w.flight <- struct{}{}:
	case <-w.ctx.Done():
		return false
	}
	w.files.Go(func() {
		defer func() { <-w.flight }()
		w.settled(rel, fd, w.settle(fd))
		_ = w.store.Close(fd) // only read
	})
	return true
}

// settle looks at a file, and where it finds a fault, looks again: a mount may be changing the file. A fault stands when two
// looks with a pause between them have found the same, in a file whose size and times have not moved. What is still moving
// after some looks is reported as unchecked.
func (w *verify) settle(fd int) fileLook {
	look := w.look(fd, everyBlock())
	for n := 1; look.faulty() && w.ctx.Err() == nil; n++ {
		if n == verifyLooks {
			return fileLook{
				stamp: look.stamp, id: look.id, read: look.read, bad: &badBlocks{},
				err: fmt.Errorf("%w each time that it was read: %s", ErrFileChanged, look.fault()),
			}
		}
		w.pause()
		next := w.look(fd, look.again())
		next.holes, next.read = next.holes || look.holes, next.read+look.read
		if next.stamp == look.stamp && next.fault() == look.fault() {
			return next
		}
		look = next
	}
	return look
}

// fileStamp changes when a file does.
type fileStamp struct {
	size       int64
	mtim, ctim unix.Timespec
}

func stampOf(st *unix.Stat_t) fileStamp { return fileStamp{st.Size, st.Mtim, st.Ctim} }

// fileLook is what one look at a file has found.
type fileLook struct {
	stamp  fileStamp
	err    error // it cannot be opened, or not be read on
	id     crypto.ID
	empty  bool // it has no header
	hollow bool // and yet a size
	state  headerState
	spare  error      // what is wrong with the slot that does not count
	tail   int64      // bytes behind the last block, in an unsealed file
	holes  bool       // it has some
	read   int64      // bytes that were counted as done
	bad    *badBlocks // that cannot be read
}

// faulty reports whether the look has found what could be a change under way.
func (l *fileLook) faulty() bool {
	if l.err != nil {
		return aboutFile(l.err).Class == ClassDamage
	}
	return l.spare != nil || !l.bad.none()
}

// fault describes what is wrong, to be compared with another look.
func (l *fileLook) fault() string { return fmt.Sprint(l.err, l.spare, l.bad) }

// again returns which blocks the next look is for.
func (l *fileLook) again() blockChoice {
	if l.err != nil {
		return everyBlock()
	}
	return blockChoice{only: l.bad}
}

// look opens a file as a reader would and reads the chosen blocks.
func (w *verify) look(fd int, which blockChoice) (l fileLook) {
	l.bad = &badBlocks{}
	var st unix.Stat_t
	if l.err = w.store.Stat(fd, &st); l.err != nil {
		return l
	}
	l.stamp = stampOf(&st)
	f := w.v.newFile(fd, false, noEvents{})
	if l.err = f.load(w.ctx, st.Size); l.err != nil {
		if stopsAll(l.err) {
			w.fail(l.err)
		}
		l.id = w.claimedID(fd)
		return l
	}
	defer f.key.close(false)
	if !f.key.ready.Load() {
		l.empty, l.hollow = true, f.extents.eof > 0
		return l
	}
	l.id, l.state, l.tail = f.key.id, f.header.get(), st.Size-w.v.layout.CipherSize(f.extents.eof)
	if l.spare, l.err = w.checkSpare(f); l.err != nil || w.Quick {
		return l
	}
	l.err = w.blocks(f, which, &l)
	return l
}

// claimedID is the ID that the header of a file states, for messages.
func (w *verify) claimedID(fd int) crypto.ID {
	if slot, ok := w.v.newestSlot(fd); ok {
		if h, err := slot.Sealed.Peek(); err == nil {
			return h.File
		}
	}
	return crypto.ID{}
}

// checkSpare verifies the slot that does not count, if there is one.
func (w *verify) checkSpare(f *File) (fault, err error) {
	buf := make([]byte, w.v.layout.SlotSize)
	n, err := w.store.ReadAt(f.FD(), buf, int64(1-f.header.slot)*w.v.layout.SlotSize)
	if err != nil || n < len(buf) {
		return nil, err // cut meanwhile: it has changed
	}
	w.count.bytes.Add(w.v.layout.HeaderSize())
	slot, err := crypto.DecodeSlot(buf)
	if errors.Is(err, crypto.ErrNoSlot) {
		return nil, nil
	}
	if err == nil {
		_, err = f.key.mac.Open(slot.Sealed)
	}
	return err, nil
}

// at gives a finding its place.
func (f Finding) at(rel string) Finding {
	f.Path = rel
	return f
}

// settled reports what has been found in a file, and does what a repair does.
func (w *verify) settled(rel string, fd int, l fileLook) {
	w.count.done.Add(l.stamp.size - l.read)
	if w.ctx.Err() != nil {
		return
	}
	if l.hollow {
		w.found(Finding{Class: ClassNotice, Kind: KindHollow, Path: rel, Reason: "all zeros, header included: it was never synced, or it was wiped"})
	}
	if l.empty {
		w.count.empty.Add(1)
		return
	}
	damaged := l.bad.damaged()
	if l.err != nil {
		f := aboutFile(l.err).at(rel)
		f.FileID = l.id
		w.found(f)
		damaged = damaged || f.Class == ClassDamage
	}
	l.bad.each(func(f Finding) {
		f.Path, f.FileID = rel, l.id
		w.found(f)
	})
	switch {
	case damaged:
		w.markFile(rel, fd)
	case l.err == nil:
		w.notices(rel, fd, l)
	}
}

// notices reports what is to be said of a file that can be read.
func (w *verify) notices(rel string, fd int, l fileLook) {
	if l.spare != nil {
		w.found(Finding{
			Class: ClassNotice, Kind: KindSlot, Path: rel, FileID: l.id, Err: l.spare,
			Reason: fmt.Sprintf("the header slot that does not count: %v; the other one is used", l.spare),
		})
	}
	if l.state != headerUnsealed {
		return
	}
	f := Finding{Class: ClassNotice, Kind: KindUnsealed, Path: rel, FileID: l.id, Reason: "unsealed: its size is not vouched for"}
	if l.tail > 0 {
		f.Reason += fmt.Sprintf("; bytes behind its last block that are ignored: %d", l.tail)
	}
	if w.Repair {
		if err := w.reseal(fd, l); err != nil {
			w.found(Finding{Class: ClassUnchecked, Kind: KindRepair, Path: rel, FileID: l.id, Err: fmt.Errorf("cannot be sealed: %w", err)})
		} else {
			f.Resealed = true
			w.count.resealed.Add(1)
		}
	}
	w.found(f)
}

// markFile remembers a file that cannot be read, under all of its names.
func (w *verify) markFile(rel string, fd int) {
	var st unix.Stat_t
	if err := w.store.Stat(fd, &st); err == nil && st.Nlink > 1 {
		w.mu.Lock()
		defer w.mu.Unlock()
		if f := w.links[FileKey{Dev: uint64(st.Dev), Ino: st.Ino}]; f != nil {
			f.bad = true
			return
		}
		w.bad = append(w.bad, rel)
		return
	}
	w.mark(rel)
}
