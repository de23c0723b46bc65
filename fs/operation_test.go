package fs

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// operation is one call of an exercise. Which fields mean anything depends on the kind.
type operation struct {
	Kind  string
	Name  string `json:",omitempty"`
	Other string `json:",omitempty"`
	Slot  int    // a handle
	Peer  int    `json:",omitempty"` // another
	Off   int64  `json:",omitempty"`
	Len   int64  `json:",omitempty"`
	To    int64  `json:",omitempty"`
	Flags int    `json:",omitempty"`
	Mode  uint32 `json:",omitempty"`
	Seed  uint64 `json:",omitempty"`
	Attr  string `json:",omitempty"`
}

func (o operation) String() string {
	o.Name, o.Other = shorten(o.Name), shorten(o.Other)
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return "\n" + string(b)
}

// GoString is what a failing series is shown with.
func (o operation) GoString() string { return o.String() }

// exerciseSlots is how many handles an exercise keeps open at most.
const exerciseSlots = 4

// performer carries out operations in a directory and says what an application can see of each.
type performer struct {
	script
	fds [exerciseSlots]int
}

// operations are the calls of an exercise by kind.
var operations = map[string]func(p *performer, o operation){
	"open":      func(p *performer, o operation) { p.keep(o.Slot, p.open(o.Name, o.Flags|unix.O_NONBLOCK, o.Mode)) },
	"tmpfile":   func(p *performer, o operation) { p.keep(o.Slot, p.open(o.Name, unix.O_TMPFILE|unix.O_RDWR, o.Mode)) },
	"close":     func(p *performer, o operation) { p.take(o.Slot, -1) },
	"read":      func(p *performer, o operation) { p.read(p.fds[o.Slot], int(o.Len)) },
	"pread":     func(p *performer, o operation) { p.pread(p.fds[o.Slot], int(o.Len), o.Off) },
	"write":     func(p *performer, o operation) { p.write(p.fds[o.Slot], pattern(o.Seed, int(o.Len))) },
	"pwrite":    func(p *performer, o operation) { p.pwrite(p.fds[o.Slot], pattern(o.Seed, int(o.Len)), o.Off) },
	"lseek":     (*performer).seekFile,
	"ftruncate": func(p *performer, o operation) { p.result(unix.Ftruncate(p.fds[o.Slot], o.Off), "ftruncate %d", o.Off) },
	"truncate":  (*performer).truncateByName,
	"fallocate": (*performer).fallocate,
	"holes":     (*performer).holes,
	"sync":      (*performer).sync,
	"mapread":   func(p *performer, o operation) { p.mapped(o, unix.PROT_READ) },
	"mapwrite":  func(p *performer, o operation) { p.mapped(o, unix.PROT_READ|unix.PROT_WRITE) },
	"copy":      (*performer).copyRange,
	"linkat":    (*performer).linkHandle,
	"fstat":     func(p *performer, o operation) { p.fstat(p.fds[o.Slot]) },
	"stat":      func(p *performer, o operation) { p.stat(o.Name) },
	"list":      func(p *performer, o operation) { p.list(o.Name) },
	"mkdir":     func(p *performer, o operation) { p.mkdir(o.Name, o.Mode) },
	"rmdir":     func(p *performer, o operation) { p.rmdir(o.Name) },
	"mknod":     func(p *performer, o operation) { p.mknod(o.Name, o.Mode, uint64(o.To)) },
	"unlink":    func(p *performer, o operation) { p.unlink(o.Name) },
	"rename":    func(p *performer, o operation) { p.rename(o.Name, o.Other, uint(o.Flags)) },
	"link":      func(p *performer, o operation) { p.link(o.Name, o.Other) },
	"symlink":   func(p *performer, o operation) { p.symlink(o.Other, o.Name) },
	"readlink":  (*performer).target,
	"chmod":     func(p *performer, o operation) { p.chmod(o.Name, o.Mode) },
	"fchmod":    func(p *performer, o operation) { p.result(unix.Fchmod(p.fds[o.Slot], o.Mode), "fchmod %o", o.Mode) },
	"chown":     func(p *performer, o operation) { p.chown(o.Name, int(o.Off), int(o.Len)) },
	"fchown": func(p *performer, o operation) {
		p.result(unix.Fchown(p.fds[o.Slot], int(o.Off), int(o.Len)), "fchown")
	},
	"utimens":    (*performer).utimens,
	"setxattr":   func(p *performer, o operation) { p.setxattr(o.Name, o.Attr, pattern(o.Seed, int(o.Len)), o.Flags) },
	"getxattr":   func(p *performer, o operation) { p.getxattr(o.Name, o.Attr, 1000) },
	"fsetxattr":  (*performer).setHandleAttr,
	"unsetxattr": func(p *performer, o operation) { p.removexattr(o.Name, o.Attr) },
	"acl":        func(p *performer, o operation) { p.setxattr(o.Name, o.Attr, aclText(o.Mode, o.Seed), 0) },
	"look":       func(p *performer, o operation) { p.look() },
	"chdir":      (*performer).move,
}

// perform is a process that carries out the operations that it is told, one after the other.
func perform(_ string, _ []string) error {
	unix.Umask(0o022)
	p := &performer{}
	p.forget()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o operation
		if err := in.Decode(&o); err != nil {
			return nil // the test has ended
		}
		p.out = nil
		call, ok := operations[o.Kind]
		if !ok {
			return fmt.Errorf("no operation %q", o.Kind)
		}
		p.guard(func(*script) { call(p, o) })
		if err := out.Encode(p.out); err != nil {
			return err
		}
	}
}

func (p *performer) forget() {
	for i := range p.fds {
		p.fds[i] = -1
	}
}

// keep is take for the outcome of an open; if that failed the slot keeps what it has.
func (p *performer) keep(slot, fd int) {
	if fd >= 0 {
		p.take(slot, fd)
	}
}

// take puts a handle into a slot; what was there is closed.
func (p *performer) take(slot, fd int) {
	if p.fds[slot] >= 0 {
		p.close(p.fds[slot])
	}
	p.fds[slot] = fd
}

// move closes everything and goes on in another directory, which it makes if need be.
func (p *performer) move(o operation) {
	for i := range p.fds {
		p.take(i, -1)
	}
	p.dir = o.Name
	p.quiet(os.MkdirAll(p.dir, 0o755), "mkdir")
}

// seekFile leaves directories out, where a position means what the file system wants it to.
func (p *performer) seekFile(o operation) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fds[o.Slot], &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		p.seek(p.fds[o.Slot], o.Off, o.Flags)
	}
}

func (p *performer) fallocate(o operation) {
	p.result(again(func() error { return unix.Fallocate(p.fds[o.Slot], uint32(o.Flags), o.Off, o.Len) }), "fallocate %#x %d+%d",
		o.Flags, o.Off, o.Len)
}

// holes checks that what is called a hole holds zeros. Where holes begin and end may differ.
func (p *performer) holes(o operation) {
	fd := p.fds[o.Slot]
	var st unix.Stat_t
	if p.quiet(unix.Fstat(fd, &st), "fstat"); st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	at, err := unix.Seek(fd, 0, unix.SEEK_CUR)
	p.note("holes: %s", mapOf(fd, st.Size))
	_, berr := unix.Seek(fd, at, unix.SEEK_SET)
	p.note("position %d %s %s", at, errName(err), errName(berr))
}

func (p *performer) sync(o operation) {
	call := unix.Fsync
	if o.Flags != 0 {
		call = unix.Fdatasync
	}
	p.result(again(func() error { return call(p.fds[o.Slot]) }), "sync")
}

// mapped reads or changes a part of a file through a mapping.
func (p *performer) mapped(o operation, prot int) {
	fd := p.fds[o.Slot]
	var st unix.Stat_t
	if p.quiet(unix.Fstat(fd, &st), "fstat"); st.Mode&unix.S_IFMT != unix.S_IFREG || o.Off >= st.Size {
		return
	}
	end := min(o.Off+o.Len, st.Size)
	m := p.mmap(fd, 0, int(end), prot, unix.MAP_SHARED)
	if m == nil {
		return
	}
	if prot&unix.PROT_WRITE != 0 {
		copy(m[o.Off:], pattern(o.Seed, int(o.Len)))
	}
	p.note("mapped: %s", digest(m[o.Off:]))
	if o.Flags != 0 {
		p.quiet(unix.Msync(m, unix.MS_SYNC), "msync")
	}
	p.munmap(m)
}

func (p *performer) copyRange(o operation) {
	from, to := o.Off, o.To
	n, err := unix.CopyFileRange(p.fds[o.Slot], &from, p.fds[o.Peer], &to, int(o.Len), 0)
	p.result(err, "copy %d from %d to %d -> %d", o.Len, o.Off, o.To, n)
}

// linkHandle gives an open file, which may have none yet, a name.
func (p *performer) linkHandle(o operation) {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", p.fds[o.Slot]), unix.AT_FDCWD, p.p(o.Name), unix.AT_SYMLINK_FOLLOW)
	p.result(err, "link a handle %q", shorten(o.Name))
}

// truncateByName is truncate(2). Whether it moves the modification time of a file that has that size already is up to the file
// system: ext4 does, tmpfs does not, nor does Linux for a FUSE file system whose writes it caches. So it is moved here then.
func (p *performer) truncateByName(o operation) {
	var st unix.Stat_t
	same := unix.Stat(p.p(o.Name), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == o.Off
	p.truncate(o.Name, o.Off)
	if !same {
		return
	}
	now := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}
	p.result(unix.UtimesNanoAt(unix.AT_FDCWD, p.p(o.Name), now, 0), "modified %q now", shorten(o.Name))
}

func (p *performer) target(o operation) {
	target, err := os.Readlink(p.p(o.Name))
	p.result(err, "readlink %q -> %q", shorten(o.Name), target)
}

func (p *performer) setHandleAttr(o operation) {
	p.result(unix.Fsetxattr(p.fds[o.Slot], o.Attr, pattern(o.Seed, int(o.Len)), o.Flags), "fsetxattr %s", o.Attr)
}

// oldTime is about when the times are that utimens sets, in seconds: what shows a later one was set by the clock.
const oldTime = 1_000_000_000

func (p *performer) utimens(o operation) {
	times := []unix.Timespec{{Sec: oldTime + o.Off, Nsec: 1}, {Sec: oldTime + o.Len, Nsec: o.Len}}
	p.result(unix.UtimesNanoAt(unix.AT_FDCWD, p.p(o.Name), times, unix.AT_SYMLINK_NOFOLLOW), "utimens %q %d", shorten(o.Name), o.Len)
	p.modified(o.Name)
}

// modified writes down the modification time if it was set. Linux tells a FUSE file system nothing of writes to a fifo.
func (p *performer) modified(name string) {
	var st unix.Stat_t
	err := unix.Lstat(p.p(name), &st)
	if err != nil || st.Mtim.Sec > oldTime+1000 || st.Mode&unix.S_IFMT == unix.S_IFIFO {
		return
	}
	p.note("  mtime %d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
}

// aclText is an ACL in the form of its attribute: the owner, a user, the group, a mask and all others, with rights out of bits.
func aclText(bits uint32, user uint64) []byte {
	acl := []byte{2, 0, 0, 0}
	for i, tag := range []byte{0x01, 0x02, 0x04, 0x10, 0x20} {
		id := []byte{0xff, 0xff, 0xff, 0xff}
		if tag == 0x02 {
			id = []byte{byte(user), 4, 0, 0}
		}
		acl = append(acl, tag, 0, byte(bits>>(3*i)&7), 0)
		acl = append(acl, id...)
	}
	return acl
}

// look writes down everything in the directory, and what the handles show.
func (p *performer) look() {
	first := map[uint64]string{}
	var names []string
	p.quiet(filepath.WalkDir(p.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != p.dir {
			names = append(names, strings.TrimPrefix(path, p.dir+"/"))
		}
		return err
	}), "walk")
	slices.Sort(names)
	for _, name := range names {
		p.entry(name, first)
	}
	for _, fd := range p.fds {
		if fd >= 0 {
			p.fstat(fd)
		}
	}
}

// entry writes down what there is to know of a name. first has the first name that was seen of each inode.
func (p *performer) entry(name string, first map[uint64]string) {
	var st unix.Stat_t
	if !p.result(unix.Lstat(p.p(name), &st), "entry %q", shorten(name)) {
		return
	}
	p.attributes(&st)
	p.modified(name)
	p.xattrs(name)
	if same, ok := first[st.Ino]; ok {
		p.note("  the same as %q", same)
		return
	}
	first[st.Ino] = name
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		p.content(name)
	case unix.S_IFLNK:
		p.target(operation{Name: name})
	case unix.S_IFDIR:
		p.list(name)
	}
}
