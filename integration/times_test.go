package integration

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTimesKept: what programs see as the time of change of a file that they have closed does not move: not while it is
// sealed, not with a remount. make, git and rsync rely on it.
func TestTimesKept(t *testing.T) {
	for _, cache := range []string{"writeback", "writethrough"} {
		t.Run(cache, func(t *testing.T) {
			r := newRig(t)
			r.mountFlags = append(r.mountFlags, "--cache", cache)
			r.mount()
			for i := range 100 { // within a tick of the clock, or across one
				r.write(r.path(fmt.Sprintf("written-%d", i)), string(noise(i*500, uint64(i))))
			}
			r.sh(`seq 10000 > grown; seq 10000 >> grown; truncate -s 5000 grown; cp -p /bin/true copied; cp /bin/true now; touch -d '2001-02-03 04:05:06.789' copied`)
			letGo := r.keepInodes()
			want := snapshot(t, r.mnt)
			ctimes := `stat -c '%n %z' *`
			ctimesBefore := r.sh(ctimes)
			r.sh(`echo last > last`)
			r.settle("last")
			r.sh(`rm last`)
			got := snapshot(t, r.mnt)
			delete(want, ".") // has had an entry more
			delete(got, ".")
			sameTree(t, want, got)
			if after := r.sh(ctimes); after != ctimesBefore {
				t.Error("times of change have moved by sealing, though the mount is the same")
			}
			letGo()
			r.remount()
			got = snapshot(t, r.mnt)
			delete(got, ".")
			sameTree(t, want, got)
		})
	}
}

// keepInodes keeps the kernel from forgetting what it knows of the files in the mount, as it may when memory is short. No
// file is opened by that.
func (r *rig) keepInodes() (letGo func()) {
	r.t.Helper()
	entries, err := os.ReadDir(r.mnt)
	if err != nil {
		r.t.Fatal(err)
	}
	var fds []int
	letGo = func() {
		for _, fd := range fds {
			_ = unix.Close(fd) // only a path
		}
		fds = nil
	}
	r.t.Cleanup(letGo)
	for _, e := range entries {
		fd, err := unix.Open(r.path(e.Name()), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			r.t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	return letGo
}
