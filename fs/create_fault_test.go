package fs

import (
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// deafToAttributes is a Hook that answers each question for an extended attribute with an error.
type deafToAttributes struct {
	mu    sync.Mutex
	errno error // guarded by mu
}

func (d *deafToAttributes) answer(errno error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errno = errno
}

func (d *deafToAttributes) Before(c *backing.Call) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Op == backing.OpGetxattr {
		return d.errno
	}
	return nil
}

// makers are the calls that make an entry whose mode depends on a default ACL. Each returns the mode that came out.
var makers = map[string]func(dir string) (uint32, error){
	"mkdir": func(dir string) (uint32, error) {
		return modeAfter(filepath.Join(dir, longName('d', 230)), func(path string) error { return unix.Mkdir(path, 0o666) })
	},
	"mknod": func(dir string) (uint32, error) {
		return modeAfter(filepath.Join(dir, longName('n', 230)), func(path string) error { return unix.Mknod(path, unix.S_IFIFO|0o666, 0) })
	},
	"create": func(dir string) (uint32, error) {
		return modeAfter(filepath.Join(dir, longName('c', 230)), func(path string) error {
			fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	},
	"tmpfile": func(dir string) (uint32, error) {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return 0, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return 0, err
		}
		return st.Mode & 0o777, unix.Close(fd)
	},
}

// withUmask runs a maker under the usual umask, on a thread that does not share it with the file system in this process.
func withUmask(maker func(dir string) (uint32, error), dir string) (mode uint32, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks: the thread ends with this function
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		unix.Umask(0o022)
		mode, err = maker(dir)
	}()
	<-done
	return mode, err
}

func modeAfter(path string, call func(path string) error) (uint32, error) {
	if err := call(path); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Mode & 0o777, err
}

// TestUnansweredACL: whether a directory has a default ACL decides the mode of what is made inside. An error of that question
// reaches the application, leaves nothing behind and is not taken for an answer later; that there are no ACLs is no error.
func TestUnansweredACL(t *testing.T) {
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) {
			hook := &deafToAttributes{}
			r := newRig(t, Options{}, withHook(hook))
			dir := r.path("d")
			if err := unix.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			// What the group gets by this ACL is more than the umask of a test would leave.
			if err := unix.Setxattr(dir, aclDefault, aclText(0o07077, 1), 0); err != nil {
				t.Fatal(err)
			}
			r.remount()
			hook.answer(unix.EIO)
			if mode, err := withUmask(maker, dir); err != unix.EIO {
				t.Errorf("with an unreadable ACL: mode %#o, %v; want EIO", mode, err)
			}
			hook.answer(nil)
			if left := storedNames(t, r.stored("d")); len(left) != 0 {
				t.Errorf("there is left %q", left)
			}
			if mode, err := withUmask(maker, dir); err != nil || mode != 0o660 {
				t.Errorf("once it is readable: mode %#o, %v; want that of the ACL, 0660", mode, err)
			}
		})
		t.Run(name+"-without", func(t *testing.T) {
			hook := &deafToAttributes{}
			r := newRig(t, Options{}, withHook(hook))
			for _, none := range []unix.Errno{unix.ENODATA, unix.EOPNOTSUPP} {
				dir := r.path(none.Error())
				if err := unix.Mkdir(dir, 0o777); err != nil {
					t.Fatal(err)
				}
				hook.answer(none)
				if mode, err := withUmask(maker, dir); err != nil || mode != 0o644 {
					t.Errorf("%v: mode %#o, %v; want 0644", none, mode, err)
				}
				hook.answer(nil)
			}
		})
	}
}
