package volume

import (
	"context"
	"sync"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"golang.org/x/sys/unix"
)

const (
	// prefetchFirst is how many keys are fetched ahead when a second file is opened in directory order. Once half of them are
	// used, twice as many are fetched, up to prefetchMost: a reader that stops has cost little, one that goes on never waits.
	prefetchFirst = 16
	prefetchMost  = 1024
	// prefetchScattered is how many keys are fetched from the beginning of a directory whose files are opened in none of these
	// orders, and prefetchMisses how many files that were not among those are opened before an order is looked for again.
	prefetchScattered = 2 * keyring.DefaultBatch
	prefetchMisses    = 64
	// prefetchHeld bounds the files that are remembered as fetched and not opened.
	prefetchHeld = 4 * prefetchMost
	// prefetchStreams is how many readers are followed at once.
	prefetchStreams = 4
)

// FileKey identifies a backing file: its device and inode number.
type FileKey struct {
	Dev, Ino uint64
}

func keyOf(st *unix.Stat_t) FileKey { return FileKey{Dev: uint64(st.Dev), Ino: st.Ino} }

// prefetcher fetches the keys of files before they are opened. A program that goes through a tree (tar, grep -r, a backup)
// opens files in directory order, in that of inode numbers (cp) or of names, and would wait for the key service at each. So once
// two files are opened in one of these orders, the headers of those that follow are read and their keys acquired, which leaves
// them in the cache. The order is that of a depth-first walk: the rest of the directory, subdirectories where they stand, then
// what follows in the directory above.
//
// Listing and stat open nothing, and so fetch nothing.
type prefetcher struct {
	v      *Volume
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	streams []*stream // most recently used first; guarded by mu
	closed  bool      // guarded by mu
}

// stream follows one reader.
type stream struct {
	// ahead has the files that were fetched and not opened yet, with their places in the walk, from 1. Guarded by prefetcher.mu.
	ahead     map[FileKey]int
	fetched   int     // place of the last one that was fetched; guarded by prefetcher.mu
	passed    int     // the furthest place of one that was opened; guarded by prefetcher.mu
	window    int     // how far to be ahead of passed; guarded by prefetcher.mu
	dir       FileKey // directory of the file opened last; guarded by prefetcher.mu
	last      string  // name of that file; guarded by prefetcher.mu
	scattered bool    // files of a directory are opened in no order that is known; guarded by prefetcher.mu
	misses    int     // files in a row that were not fetched; guarded by prefetcher.mu
	walking   bool    // a goroutine is moving the walk on; guarded by prefetcher.mu
	walk      *walk   // belongs to that goroutine while walking is set
}

func newPrefetcher(v *Volume) *prefetcher {
	ctx, cancel := context.WithCancel(context.Background())
	return &prefetcher{v: v, ctx: ctx, cancel: cancel}
}

// Opening tells the volume that the file called stored in the directory dir is about to be opened, so that it can get ready
// for those which follow. dir is only used during the call; dirKey and file identify directory and file.
func (v *Volume) Opening(dir int, dirKey FileKey, stored string, file FileKey) {
	if v.prefetch == nil {
		return
	}
	v.prefetch.opening(dir, dirKey, stored, file)
}

func (p *prefetcher) opening(dir int, dirKey FileKey, stored string, file FileKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	s, used := p.find(dirKey, file)
	switch {
	case s == nil: // a first file: remember where
		scattered := len(p.streams) > 0 && p.streams[0].scattered && p.streams[0].misses == 0
		s = &stream{misses: 1}
		p.remember(s)
		if scattered { // whoever reads the last directory in its own order does so in this one
			p.start(s, dir, stored, true)
		}
	case used:
		s.misses = 0
		if !s.walking && (s.fetched-s.passed <= s.window/2 || s.scattered && s.window < prefetchMost) {
			s.window = min(2*s.window, prefetchMost)
			p.goOn(s)
		}
	case !s.walking: // another file of the directory; a walk that is under way may come to it
		if s.misses++; !s.scattered || s.misses >= prefetchMisses {
			p.start(s, dir, stored, false)
		}
	}
	s.dir, s.last = dirKey, stored
}

// start begins a walk behind the file that is opened, in the order in which it follows the last one, or at the beginning of its
// directory if there is none. The caller holds mu.
func (p *prefetcher) start(s *stream, dir int, stored string, scattered bool) {
	w, err := p.v.newWalk(dir, stored)
	if err != nil {
		return
	}
	window := prefetchFirst
	if scattered = scattered || s.last != "" && !w.follow(s.last, stored); scattered {
		w.rewind()
		window = prefetchScattered
	}
	if s.walk != nil {
		s.walk.close()
	}
	*s = stream{walk: w, window: window, scattered: scattered, misses: 1, ahead: map[FileKey]int{}}
	p.goOn(s)
}

// goOn moves the walk of a stream on, if there is one. The caller holds mu.
func (p *prefetcher) goOn(s *stream) {
	if s.walk == nil {
		return
	}
	s.prune()
	s.walking = true
	p.work.Go(func() { p.advance(s) })
}

// prune forgets the files that a reader has left behind without opening them. The caller holds mu.
func (s *stream) prune() {
	if len(s.ahead) < prefetchHeld {
		return
	}
	for file, place := range s.ahead {
		if place < s.passed-prefetchHeld/2 {
			delete(s.ahead, file)
		}
	}
}

// find returns the stream that a file belongs to: because its key was fetched ahead (used), or because the file opened last
// was in the same directory. The stream moves to the front. The caller holds mu.
func (p *prefetcher) find(dir, file FileKey) (s *stream, used bool) {
	found := -1
	for i, s := range p.streams {
		if place, ok := s.ahead[file]; ok {
			delete(s.ahead, file)
			s.passed = max(s.passed, place)
			p.toFront(i)
			return s, true
		}
		if s.dir == dir && found < 0 {
			found = i
		}
	}
	if found < 0 {
		return nil, false
	}
	p.toFront(found)
	return p.streams[0], false
}

func (p *prefetcher) toFront(i int) {
	s := p.streams[i]
	copy(p.streams[1:i+1], p.streams[:i])
	p.streams[0] = s
}

// remember starts to follow a reader, in the place of the one not heard of for longest. The caller holds mu.
func (p *prefetcher) remember(s *stream) {
	if len(p.streams) == prefetchStreams {
		last := p.streams[prefetchStreams-1]
		if !last.walking && last.walk != nil {
			last.walk.close()
			last.walk = nil
		}
		p.streams = p.streams[:prefetchStreams-1]
	}
	p.streams = append([]*stream{s}, p.streams...)
}

// advance moves the walk on until the stream is far enough ahead. It fetches in full requests.
func (p *prefetcher) advance(s *stream) {
	var batch []keyring.Wrapped
	fetch := func() {
		full := batch
		batch = nil
		p.work.Go(func() { p.v.cache.Fetch(p.ctx, full) })
	}
	for p.wants(s) {
		key, wrapped, err := s.walk.next()
		if err != nil {
			break
		}
		if wrapped == "" {
			continue
		}
		p.mu.Lock()
		s.fetched++
		s.ahead[key] = s.fetched
		p.mu.Unlock()
		if batch = append(batch, wrapped); len(batch) == keyring.DefaultBatch {
			fetch()
		}
	}
	if len(batch) > 0 {
		fetch()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.walking = false
	if p.closed || !p.follows(s) {
		s.walk.close()
		s.walk = nil
	}
}

func (p *prefetcher) wants(s *stream) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && s.fetched-s.passed < s.window && len(s.ahead) < prefetchHeld && p.follows(s)
}

// follows reports whether the stream is still one of ours. The caller holds mu.
func (p *prefetcher) follows(s *stream) bool {
	for _, o := range p.streams {
		if o == s {
			return true
		}
	}
	return false
}

func (p *prefetcher) close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.streams {
		if !s.walking && s.walk != nil {
			s.walk.close()
			s.walk = nil
		}
	}
	p.mu.Unlock()
	p.cancel()
	p.work.Wait()
}

// wrappedIn returns the wrapped key of a backing file, or "" if it has none that can be used.
func (v *Volume) wrappedIn(fd int) keyring.Wrapped {
	slot, ok := v.newestSlot(fd)
	if !ok {
		return ""
	}
	return keyring.Wrapped(slot.Wrapped)
}

func (v *Volume) newestSlot(fd int) (crypto.Slot, bool) {
	buf := make([]byte, v.layout.HeaderSize())
	n, err := v.store.ReadAt(fd, buf, 0)
	if err != nil || n < len(buf) {
		return crypto.Slot{}, false
	}
	slot, _, err := crypto.NewestSlot(buf, int(v.layout.SlotSize))
	return slot, err == nil
}

// openForWalk opens an entry for reading its header, whatever it turns out to be.
func (v *Volume) openForWalk(dir int, name string) (int, error) {
	return v.store.Open(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOATIME, 0)
}

// Identify returns the file ID and KEK version that the header of an entry states. Nothing of it is authenticated: it is for
// messages. ok is false for what is not a regular file with a header.
func (v *Volume) Identify(dir int, name string) (id crypto.ID, kek int, ok bool) {
	fd, err := v.openForWalk(dir, name)
	if err != nil {
		return id, 0, false
	}
	defer func() { _ = v.store.Close(fd) }() // only read from
	slot, ok := v.newestSlot(fd)
	if !ok {
		return id, 0, false
	}
	h, err := slot.Sealed.Peek()
	return h.File, versionOf(keyring.Wrapped(slot.Wrapped)), err == nil
}

// versionOf returns the KEK version that a wrapped key states, or 0 if it cannot be told.
func versionOf(w keyring.Wrapped) int {
	n, err := w.Version()
	if err != nil {
		return 0
	}
	return n
}
