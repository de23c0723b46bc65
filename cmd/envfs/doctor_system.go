package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
)

// system is the machine as a mount finds it.
type system struct {
	root string // of the file system; another one in tests
	uid  int

	memlock, nofile uint64 // soft limits of this process
	canLock         bool   // locked memory is not limited for it
}

func newSystem(root string) *system {
	s := &system{root: root, uid: os.Geteuid()}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		s.memlock = limit.Cur
	}
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		s.nofile = limit.Cur // Go has raised it to the hard limit
	}
	s.canLock = mayLockMemory()
	return s
}

// mayLockMemory tells whether this process has CAP_IPC_LOCK.
func mayLockMemory() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&header, &sets[0]) == nil && sets[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0
}

func (s *system) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

// examine looks at all of it.
func (s *system) examine(r section) {
	r.ok("versions", "envfs %s, %s, Linux %s", envfsVersion(), runtime.Version(), kernelVersion())
	s.examineFuse(r)
	s.examineMountHelper(r)
	s.examineLimits(r)
	s.examineSwap(r)
}

func envfsVersion() string {
	info, ok := debug.ReadBuildInfo()
	return newVersionReport(info, ok).Version
}

func kernelVersion() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(name.Release[:])
}

func (s *system) examineFuse(r section) {
	if f, err := os.OpenFile(s.path("dev/fuse"), os.O_RDWR, 0); err != nil {
		class := errNoFuse
		if os.IsPermission(err) {
			class = errFuseDenied
		}
		r.failed("FUSE", fmt.Errorf("%w: %w", class, err))
	} else {
		_ = f.Close() // only opened
		r.ok("FUSE", "/dev/fuse can be opened")
	}
	if s.uid == 0 {
		r.ok("fusermount3", "not needed by root")
		r.ok("allow_other", "root may use it")
		return
	}
	if helper, err := mounts.Helper(); err != nil {
		r.failed("fusermount3", err)
	} else if program, err := os.Stat(helper); err != nil || program.Mode()&os.ModeSetuid == 0 {
		r.problem("fusermount3", "install the package fuse3 anew: chmod u+s "+helper, "%s is not set-user-ID root: users cannot mount", helper)
	} else {
		r.ok("fusermount3", "%s", helper)
	}
	if conf := s.path("etc/fuse.conf"); othersAllowed(conf) {
		r.ok("allow_other", "users may use it, by /etc/fuse.conf")
	} else {
		r.warn("allow_other", "if you want -o allow_other, have root add the line user_allow_other to /etc/fuse.conf",
			"only root may let other users into a mount")
	}
}

// examineMountHelper looks for the program that mount(8) runs.
func (s *system) examineMountHelper(r section) {
	const name = "mount helper"
	own, err := os.Executable()
	if err != nil {
		own = "envfs"
	}
	hint := "for fstab and mount -t envfs: ln -s " + quote(own) + " /sbin/mount.envfs"
	helper, err := filepath.EvalSymlinks(s.path("sbin/mount.envfs"))
	if err != nil {
		r.warn(name, hint, "/sbin/mount.envfs is missing")
		return
	}
	if _, err := exec.LookPath(helper); err != nil {
		r.problem(name, hint, "/sbin/mount.envfs leads to %s, which cannot be run", helper)
		return
	}
	if own, err = filepath.EvalSymlinks(own); err == nil && own != helper {
		r.warn(name, "if that is an older one, "+hint, "/sbin/mount.envfs is another program than this one: %s", helper)
		return
	}
	r.ok(name, "/sbin/mount.envfs is this program")
}

// What a mount with many files needs: 65,536 keys of 64 bytes with room for
// others, and a descriptor for each open file.
const (
	wantedMemlock = 8 << 20
	wantedFiles   = 16384
)

func (s *system) examineLimits(r section) {
	switch {
	case s.canLock || s.memlock == unix.RLIM_INFINITY:
		r.ok("locked memory", "not limited")
	case s.memlock < wantedMemlock:
		r.warn("locked memory", "raise it: ulimit -l 65536, or LimitMEMLOCK=64M in a systemd unit",
			"limited to %s; keys beyond that may be swapped out", size(int64(s.memlock)))
	default:
		r.ok("locked memory", "limited to %s", size(int64(s.memlock)))
	}
	if s.nofile < wantedFiles {
		r.warn("open files", "raise it: ulimit -n 65536, or LimitNOFILE=65536 in a systemd unit",
			"limited to %d; each file that is open in a mount counts", s.nofile)
	} else {
		r.ok("open files", "limited to %d", s.nofile)
	}
}

// examineSwap looks for swap space that shows what it is given.
func (s *system) examineSwap(r section) {
	text, err := os.ReadFile(s.path("proc/swaps"))
	if err != nil {
		r.warn("swap", "", "cannot be looked at: %v", err)
		return
	}
	var clear []string
	areas := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "Filename" {
			continue
		}
		areas++
		if !s.isHiddenSwap(fields[0], fields[1]) {
			clear = append(clear, fields[0])
		}
	}
	switch {
	case areas == 0:
		r.ok("swap", "none")
	case len(clear) == 0:
		r.ok("swap", "encrypted, or in memory")
	default:
		r.warn("swap", "encrypt it (the option swap of crypttab), or turn it off: swapoff -a",
			"%s is not known to be encrypted; keys are locked in memory, but what programs have read may get there", strings.Join(clear, ", "))
	}
}

// isHiddenSwap tells whether a swap area is compressed memory, or a device that
// lies on encrypted ones only. Of a file, nobody can tell.
func (s *system) isHiddenSwap(name, kind string) bool {
	if kind != "partition" {
		return false
	}
	device := filepath.Base(name)
	if target, err := filepath.EvalSymlinks(s.path(name)); err == nil {
		device = filepath.Base(target)
	}
	if strings.HasPrefix(device, "zram") {
		backing, err := os.ReadFile(s.path("sys/block", device, "backing_dev"))
		return err != nil || strings.TrimSpace(string(backing)) == "none"
	}
	return s.isEncrypted(device, 8)
}

// isEncrypted follows a device mapper's device down to what it lies on, at most
// so many layers.
func (s *system) isEncrypted(device string, layers int) bool {
	uuid, err := os.ReadFile(s.path("sys/block", device, "dm/uuid"))
	if err != nil || layers == 0 {
		return false
	}
	if strings.HasPrefix(string(uuid), "CRYPT-") {
		return true
	}
	below, err := os.ReadDir(s.path("sys/block", device, "slaves"))
	for _, slave := range below {
		if !s.isEncrypted(slave.Name(), layers-1) {
			return false
		}
	}
	return err == nil && len(below) > 0
}
