package fs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/internal/fusedev"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Options say how a volume is mounted.
type Options struct {
	// AllowOther lets all users in; the kernel then checks permissions. Without it only the user of this process gets in,
	// and what the process may do below is what that user may do above.
	AllowOther bool
	ReadOnly   bool
	// WriteThrough makes each write(2) reach the backing file before it returns. By default the kernel keeps written pages
	// until it writes them back or somebody calls fsync(2).
	WriteThrough      bool
	NoAtime           bool     // reading changes no access time, but that of a symbolic link
	NoDirAtime        bool     // likewise for directories alone
	Dev, Suid, NoExec bool     // device nodes and set-id bits work; programs do not
	FsName            string   // shown as the source of the mount
	Extra             []string // further options for the kernel
	Log               *slog.Logger
	Debug             bool          // trace every request
	KeyWait           time.Duration // how long an open may wait for the key service; 0 means DefaultKeyWait
	DirectoriesKept   int           // directory descriptors kept open; 0 means a part of RLIMIT_NOFILE
	DisableXattr      bool          // no extended attributes and ACLs: one request less for each file in ls -l
	// FastOpen has the kernel open and close files without asking. What is wrong with a key or header is then reported when the
	// file is read or written, not when it is opened, there is no O_TMPFILE, and nothing says who opened a file: it excludes Audit.
	FastOpen           bool
	MaxKernelReadahead int     // bytes; 0 means 1 MiB
	Restless           bool    // wait for requests without sleeping while they follow each other closely; needs a second processor
	Audit              Auditor // nil: nobody wants to know
	AuditRequired      bool    // refuse what Audit cannot record
}

// DefaultKeyWait is how long an open waits for a key service that does not answer.
const DefaultKeyWait = 10 * time.Second

const (
	// cacheTime is how long the kernel may rely on names and attributes without asking. One mount owns the volume and tells
	// the kernel of every change, because every change comes from the kernel.
	cacheTime = time.Hour
	// maxRequest is the largest read or write that the kernel sends, in bytes.
	maxRequest = 1 << 20
	// maxBackground is how many asynchronous requests the kernel has under way at once.
	maxBackground = 64
)

// Server is a mounted volume.
type Server struct {
	fuse.RawFileSystem // answers ENOSYS to what is not implemented here

	vol      *volume.Volume
	store    *backing.Store
	opts     Options
	log      *slog.Logger
	dev      *fusedev.Device
	table    *table
	gate     *gate
	freezer  freezer
	root     *inode
	dirs     *directoryCache
	handles  handles
	reporter reporter
	foreign  reporter
	counters counters
	held     held        // with Options.FastOpen
	selinux  atomic.Bool // the kernel has it; set once

	opensMu sync.Mutex
	opens   map[*inode]chan struct{} // inodes being opened, which others wait for; guarded by opensMu

	mountpoint string // as it was given to Mount

	rootDev  uint64
	uid, gid uint32 // of this process
	openNow  atomic.Int64
	activity atomic.Int64 // time of the last request, Unix nanoseconds
	served   chan struct{}
	ended    error // result of the shutdown; read after served is closed
}

// Mount mounts the volume at mountpoint, which must be an existing directory, and starts to serve it. The umask of the
// process is set to 0: the umask of each caller is applied instead. The volume must stay open until Wait has returned.
func Mount(v *volume.Volume, mountpoint string, o Options) (*Server, error) {
	s, err := newServer(v, o)
	if err != nil {
		return nil, err
	}
	s.mountpoint = mountpoint
	unix.Umask(0)
	s.dev, err = fusedev.Open(s.mountOptions(mountpoint))
	if err != nil {
		s.leaveRoot()
		return nil, fmt.Errorf("mount at %s: %w", mountpoint, err)
	}
	v.OnKeyRefused(s.keyRefused)
	go s.serve()
	if err := refusePolling(mountpoint); err != nil {
		return nil, fmt.Errorf("mount at %s: %w", mountpoint, errors.Join(err, s.unmountAndWait()))
	}
	s.widenReadAhead(mountpoint)
	return s, nil
}

func newServer(v *volume.Volume, o Options) (*Server, error) {
	s := &Server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), vol: v, store: v.Store(), opts: o, log: o.Log,
		uid: uint32(os.Geteuid()), gid: uint32(os.Getegid()), opens: map[*inode]chan struct{}{}, served: make(chan struct{}),
	}
	s.selinux.Store(kernelHasSELinux())
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.opts.KeyWait == 0 {
		s.opts.KeyWait = DefaultKeyWait
	}
	s.dirs = newDirectoryCache(s.store, s.directoryLimit())
	var st unix.Stat_t
	if err := s.store.Stat(v.Root(), &st); err != nil {
		return nil, err
	}
	s.rootDev = uint64(st.Dev)
	s.root = &inode{key: keyOf(&st), kind: unix.S_IFDIR, dir: &directory{fd: -1}}
	s.table = newTable(s.root)
	s.table.smaller = func() { go debug.FreeOSMemory() } // the runtime would keep it for long
	s.gate = &gate{RawFileSystem: s, s: s}
	fd, err := s.store.Open(v.Root(), ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	s.dirs.put(s.root.dir, fd) // in use for ever
	s.touch()
	return s, nil
}

// directoryLimit leaves most descriptors to open files.
func (s *Server) directoryLimit() int {
	if s.opts.DirectoriesKept > 0 {
		return s.opts.DirectoriesKept
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 64
	}
	return int(min(max(limit.Cur/8, 16), 4096))
}

// protocolOptions are what go-fuse agrees upon with the kernel.
func (s *Server) protocolOptions() *fuse.MountOptions {
	m := &fuse.MountOptions{
		MaxBackground: maxBackground, MaxWrite: maxRequest, MaxReadAhead: maxRequest,
		EnableSymlinkCaching: true, EnableAcl: s.opts.AllowOther && !s.opts.DisableXattr, DisableXAttrs: s.opts.DisableXattr,
		// One mount owns the volume, so nothing changes a file behind the kernel's cache.
		ExplicitDataCacheControl: true,
		Debug:                    s.opts.Debug, Logger: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ExtraCapabilities: fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DONT_MASK |
			fuse.CAP_ASYNC_DIO,
	}
	if s.opts.MaxKernelReadahead > 0 {
		m.MaxReadAhead = s.opts.MaxKernelReadahead
	}
	if !s.opts.WriteThrough {
		m.ExtraCapabilities |= fuse.CAP_WRITEBACK_CACHE
	}
	if !s.opts.FastOpen {
		m.ExtraCapabilities |= fuse.CAP_ATOMIC_O_TRUNC // of which an open that nobody asks for would lose the O_TRUNC
	}
	return m
}

// mountOptions are what the kernel is told when it mounts.
func (s *Server) mountOptions(mountpoint string) fusedev.Mount {
	m := fusedev.Mount{
		Point: mountpoint, Source: s.opts.FsName, Type: "envfs", AllowOther: s.opts.AllowOther, MaxRead: maxRequest,
		Setuid: s.uid != 0,
	}
	if s.opts.AllowOther || s.opts.FastOpen { // otherwise the open is refused by the file system below
		m.Options = append(m.Options, "default_permissions")
	}
	if m.Setuid {
		m.Options = append(m.Options, append(s.mountWords(), s.opts.Extra...)...)
		return m
	}
	m.Flags = s.mountFlags()
	for _, word := range s.opts.Extra {
		if flag, ok := extraFlags()[word]; ok {
			m.Flags |= flag
		} else {
			m.Options = append(m.Options, word)
		}
	}
	return m
}

// extraFlags are the words among Options.Extra that mount(2) takes as flags.
func extraFlags() map[string]uintptr {
	return map[string]uintptr{"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC}
}

// mountFlags are the flags for mount(2), for root.
func (s *Server) mountFlags() uintptr {
	flags := uintptr(0)
	for _, f := range []struct {
		on   bool
		flag uintptr
	}{
		{!s.opts.Dev, unix.MS_NODEV}, {!s.opts.Suid, unix.MS_NOSUID}, {s.opts.NoExec, unix.MS_NOEXEC},
		{s.opts.ReadOnly, unix.MS_RDONLY}, {s.opts.NoAtime, unix.MS_NOATIME}, {s.opts.NoDirAtime, unix.MS_NODIRATIME},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}

// mountWords are the same for fusermount3, which sets nodev and nosuid for everybody but root.
func (s *Server) mountWords() []string {
	var words []string
	for _, w := range []struct {
		on   bool
		word string
	}{{s.opts.NoExec, "noexec"}, {s.opts.ReadOnly, "ro"}, {s.opts.NoAtime, "noatime"}} {
		if w.on {
			words = append(words, w.word)
		}
	}
	return words
}

// serve runs until the file system is unmounted and everything is put away.
func (s *Server) serve() {
	protocol := fuse.NewProtocolServer(s.gate, s.protocolOptions())
	s.dev.Serve(fusedev.Options{
		Handle: func(in, out [][]byte) int {
			n, _ := protocol.HandleRequest(in, out) // it has logged what is wrong, and there is no answer
			return n
		},
		Ending:     s.EndFreezing, // what waits for a thaw would wait for ever
		MaxRequest: maxRequest, Restless: s.opts.Restless, Log: s.log,
	})
	s.ended = s.shutdown()
	close(s.served)
}

// shutdown releases what the kernel did not: at an unmount it forgets all inodes without a word, and the release of a file or
// directory that was closed just before may be lost, too. Files are released after the sealer has finished with those it knows.
func (s *Server) shutdown() error {
	s.EndFreezing()
	s.held.end()
	err := s.vol.SealAll()
	for _, d := range s.handles.removeAll() {
		_ = s.store.Close(d.fd) // only read from
	}
	s.leaveRoot()
	for _, n := range s.table.all() {
		if f := n.file.Load(); f != nil {
			f.ReleaseAll()
		}
		s.discard(n)
	}
	return errors.Join(err, s.vol.SealAll())
}

// leaveRoot closes the root, which newServer has opened for as long as the mount lasts.
func (s *Server) leaveRoot() {
	s.dirs.release(s.root.dir)
	s.discard(s.root)
}

// discard closes what an inode holds that the kernel has forgotten.
func (s *Server) discard(n *inode) {
	if pin := n.pin.Swap(0); pin > 0 {
		_ = s.store.Close(int(pin - 1)) // opened with O_PATH: nothing to report
	}
	if n.dir != nil {
		s.dirs.forget(n.dir)
	}
}

// Wait returns when the file system is unmounted and every file is sealed as far as the disk allows.
func (s *Server) Wait() error {
	<-s.served
	return s.ended
}

// unmountAndWait is for a mount that nobody can use.
func (s *Server) unmountAndWait() error {
	if err := s.Unmount(); err != nil {
		return err
	}
	return s.Wait()
}

// Unmount unmounts, and does not wait until that is finished: Wait does. It fails with EBUSY while the mount is in use.
func (s *Server) Unmount() error { return s.dev.Unmount() }

// OpenHandles returns the number of open files and directories.
func (s *Server) OpenHandles() int { return int(s.openNow.Load()) }

// LastActivity returns when the kernel last asked for something.
func (s *Server) LastActivity() time.Time { return time.Unix(0, s.activity.Load()) }

// touch is called with each request.
func (s *Server) touch() {
	s.activity.Store(time.Now().UnixNano())
}

// String names the file system.
func (s *Server) String() string { return "envfs" }

// SetDebug is a part of RawFileSystem; tracing is chosen at the mount.
func (s *Server) SetDebug(bool) {}

// Forget drops look-ups of an inode.
func (s *Server) Forget(id, lookups uint64) {
	n, gone := s.table.forget(id, lookups)
	switch {
	case gone:
		s.discard(n)
	case n != nil && s.opts.FastOpen:
		s.held.forget(n)
	}
}

// StatFs passes on the state of the file system below. Names may be as long as there.
func (s *Server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := s.store.StatFS(s.vol.Root(), &st); err != nil {
		return statusOf(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: volume.MaxName, Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}
