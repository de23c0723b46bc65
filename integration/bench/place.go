package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each wait for a file system that comes or goes.
const patience = time.Minute

// folders are where a run keeps its things. Both are its own.
type folders struct {
	scratch  string // mountpoints, passphrase, logs, the tree
	data     string // ciphertext
	base     string // parent of data
	madeBase bool   // base was not there before
}

// newFolders makes the folders and the passphrase in them.
func newFolders(base string) (f *folders, err error) {
	f = &folders{}
	if f.base, err = filepath.Abs(base); err != nil {
		return f, err
	}
	if _, err := os.Stat(f.base); errors.Is(err, os.ErrNotExist) {
		f.madeBase = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
		}
	}()
	if err := os.MkdirAll(f.base, 0o700); err != nil {
		return f, err
	}
	if f.data, err = os.MkdirTemp(f.base, "bench-"); err != nil {
		return f, err
	}
	if f.scratch, err = os.MkdirTemp("", "envfs-bench-"); err != nil {
		return f, err
	}
	if f.scratch, err = filepath.EvalSymlinks(f.scratch); err != nil { // as the kernel names mountpoints
		return f, err
	}
	return f, os.WriteFile(f.passphrase(), []byte(benchPassphrase+"\n"), 0o600)
}

func (f *folders) passphrase() string { return filepath.Join(f.scratch, "passphrase") }

// remove removes all, but never what is mounted.
func (f *folders) remove() error {
	var errs []error
	if f.scratch != "" {
		if left := mountpointsBelow(f.scratch); len(left) > 0 {
			return fmt.Errorf("still mounted, so left as it is: %s", strings.Join(left, " "))
		}
		errs = append(errs, os.RemoveAll(f.scratch))
	}
	if f.data != "" {
		errs = append(errs, os.RemoveAll(f.data))
	}
	if f.madeBase {
		_ = os.Remove(f.base) // another run may be using it
	}
	return errors.Join(errs...)
}

// place is one file system under test: a new volume, mounted.
type place struct {
	*runner
	fs   fileSystem
	dir  string // where the work is done
	mnt  string // mountpoint; "" for the bare folder
	data string // ciphertext
	log  string
	pass string // file with the passphrase
	tool string // the program

	keepCaches bool // cold mounts anew and leaves the machine's page cache alone
}

// newPlace makes an empty volume and mounts it. What fails is cleaned up.
func newPlace(ctx context.Context, f *folders, fs fileSystem) (p *place, err error) {
	p = &place{
		runner: &runner{ctx: ctx}, fs: fs, data: filepath.Join(f.data, fs.name+".c"),
		log: filepath.Join(f.scratch, fs.name+".log"), pass: f.passphrase(),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := os.Mkdir(p.data, 0o700); err != nil {
		return p, err
	}
	p.dir = p.data
	if fs.program == "" {
		return p, nil
	}
	if p.tool, err = fs.path(); err != nil {
		return p, err
	}
	p.mnt = filepath.Join(f.scratch, fs.name)
	p.dir = p.mnt
	p.env = p.fill(fs.env)
	if err := os.Mkdir(p.mnt, 0o700); err != nil {
		return p, err
	}
	if len(fs.init) > 0 {
		if _, err := p.output(p.fill(fs.init)...); err != nil {
			return p, err
		}
	}
	return p, p.up()
}

// path is a path in the file system.
func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// fill completes a command of the file system.
func (p *place) fill(template []string) (args []string) {
	names := strings.NewReplacer("{t}", p.tool, "{c}", p.data, "{m}", p.mnt, "{s}", p.pass, "{l}", p.log)
	for _, arg := range template {
		args = append(args, names.Replace(arg))
	}
	return args
}

// up mounts the volume.
func (p *place) up() (err error) {
	var stdin *os.File
	if p.fs.stdin {
		if stdin, err = os.Open(p.pass); err != nil {
			return err
		}
		defer func() { _ = stdin.Close() }() // only read
	}
	if err := p.start(p.log, stdin, p.fill(p.fs.mount)...); err != nil {
		return err
	}
	return until(p.ctx, "mounted", func() bool { return len(mountpointsBelow(p.mnt)) > 0 })
}

// down unmounts the volume and returns when its daemon has ended, and with it
// the last write.
func (p *place) down(ctx context.Context) error {
	var err error
	if waitErr := until(ctx, "unmounted", func() bool {
		err = unix.Unmount(p.mnt, 0)
		return !errors.Is(err, unix.EBUSY)
	}); waitErr != nil {
		return errors.Join(waitErr, err)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", p.mnt, err)
	}
	return until(ctx, "ended by its daemon", func() bool { return len(p.daemons()) == 0 })
}

// cold makes all that is read from now on come from the storage.
func (p *place) cold() error {
	if p.mnt != "" {
		if err := p.down(p.ctx); err != nil {
			return err
		}
		if err := p.up(); err != nil {
			return err
		}
	}
	if p.keepCaches {
		return nil
	}
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// close leaves nothing, also after p.ctx has ended.
func (p *place) close() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), patience)
	defer cancel()
	if p.mnt != "" {
		if len(mountpointsBelow(p.mnt)) > 0 {
			if err := p.down(ctx); err != nil {
				p.force()
			}
		}
		p.killDaemons()
		if err := os.Remove(p.mnt); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // it is mounted, and nothing in it may be removed
		}
	}
	return errors.Join(os.RemoveAll(p.data), os.RemoveAll(p.data+".state"))
}

// force takes the mount away from whoever uses it.
func (p *place) force() {
	for range mountpointsBelow(p.mnt) {
		_ = unix.Unmount(p.mnt, unix.MNT_DETACH) // os.Remove tells whether it went
	}
}
