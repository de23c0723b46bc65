package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
)

const umountLong = `Unmount the envfs that is mounted at MOUNTPOINT.

The command returns when the process that served the mount has ended, and with
it the last write to the ciphertext directory: it can be copied then. (umount(8)
and fusermount3 work as well, but do not wait.)

If the mount is in use, nothing happens, and the processes that use it are
listed. With --lazy the mount disappears at once; what is open stays usable, and
the command does not wait until it is closed.`

const umountExample = `  envfs umount /mnt/clear
  envfs umount --lazy /mnt/clear`

type umountCommand struct {
	app     *app
	lazy    bool
	timeout time.Duration
}

func newUmount(a *app) *cobra.Command {
	u := &umountCommand{app: a}
	cmd := &cobra.Command{
		Use:     "umount [flags] MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "hide a volume again",
		Long:    umountLong,
		Example: umountExample,
		Args:    operands("MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if u.timeout <= 0 {
				return usagef(cmd, "--timeout must be positive")
			}
			return u.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().BoolVarP(&u.lazy, "lazy", "l", false, "unmount although it is in use")
	cmd.Flags().DurationVar(&u.timeout, "timeout", 2*time.Minute, "wait no longer than `DURATION` for the last writes")
	return cmd
}

func (u *umountCommand) run(ctx context.Context, path string) error {
	m, err := findMount(path)
	if err != nil {
		return err
	}
	// The lock says who serves the mount, and must be looked at while it is held.
	daemons, err := watchDaemons(m)
	if err != nil {
		u.app.warn("cannot wait for the process that serves %s: %v", m.Point, err)
	}
	defer mounts.Close(daemons)
	err = mounts.Unmount(m.Point, u.lazy)
	if errors.Is(err, mounts.ErrBusy) {
		u.listHolders(m)
		return about(m.Point, errStillBusy)
	}
	if err != nil || u.lazy || isShownElsewhere(m) {
		return err
	}
	return u.wait(ctx, m, daemons)
}

// wait returns when the last write to the ciphertext directory is done.
func (u *umountCommand) wait(ctx context.Context, m mounts.Mount, daemons []mounts.Process) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	var err error
	if len(daemons) > 0 {
		err = mounts.WaitAny(ctx, daemons)
	} else {
		err = mounts.WaitUnlocked(ctx, m.Source)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return about(m.Point, fmt.Errorf("%w after %v", errNotFinished, u.timeout))
	case errors.Is(err, context.Canceled):
		return about(m.Point, fmt.Errorf("%w: %w", errInterrupted, errNotFinished))
	}
	return err
}

// isShownElsewhere tells whether a file system is still mounted at another
// place, by mount --bind, so that its process goes on.
func isShownElsewhere(gone mounts.Mount) bool {
	table, err := mounts.Read()
	return err == nil && slices.ContainsFunc(table, gone.IsSameAs)
}

// findMount finds the mount that a user means, and says what is there instead
// if it is none of envfs.
func findMount(path string) (mounts.Mount, error) {
	point, err := mounts.Resolve(path)
	if err != nil {
		return mounts.Mount{}, err
	}
	table, err := mounts.Read()
	if err != nil {
		return mounts.Mount{}, err
	}
	m, ok := table.At(point)
	switch {
	case ok && m.IsEnvfs():
		return m, nil
	case ok:
		return m, about(path, fmt.Errorf("%w, but of type %s", errNotOurMount, m.Type))
	}
	if of := table.OfSource(point); len(of) > 0 {
		return m, about(path, fmt.Errorf("%w; this is the ciphertext directory of the mount at %s", errNotMounted, of[0].Point))
	}
	if in, ok := table.Containing(point); ok && in.IsEnvfs() {
		return m, about(path, fmt.Errorf("%w; it lies in the mount at %s", errNotMounted, in.Point))
	}
	return m, about(path, errNotMounted)
}

// watchDaemons watches the process that serves a mount: it holds the lock of
// the ciphertext directory. Read-only mounts share that lock; then there may be
// several, of which one has to end.
func watchDaemons(m mounts.Mount) ([]mounts.Process, error) {
	pids, err := mounts.LockHolders(m.Source)
	if err != nil {
		return nil, err
	}
	return mounts.Watch(pids)
}

// maxHolders bounds how many are listed.
const maxHolders = 20

// listHolders prints who keeps a mount busy.
func (u *umountCommand) listHolders(m mounts.Mount) {
	found := false
	if table, err := mounts.Read(); err == nil {
		for _, below := range table.Below(m) {
			found = true
			fmt.Fprintf(u.app.stderr, "envfs: mounted on it: %s (%s)\n", below.Point, below.Type)
		}
	}
	held, hidden, err := mounts.Holders(m.Device)
	if err != nil {
		u.app.warn("cannot find out who holds %s: %v", m.Point, err)
	}
	held = exceptOwn(held)
	for i, h := range held {
		if i == maxHolders {
			fmt.Fprintf(u.app.stderr, "envfs: … and %d more\n", len(held)-maxHolders)
			break
		}
		fmt.Fprintf(u.app.stderr, "envfs: in use by %s\n", h)
	}
	switch {
	case found || len(held) > 0:
	case hidden > 0:
		fmt.Fprintf(u.app.stderr, "envfs: %d processes of other users could not be looked into; as root they can\n", hidden)
	default:
		fmt.Fprintln(u.app.stderr, "envfs: no process was found: it may be a loop device, a swap file or an NFS export")
	}
}

// exceptOwn leaves out what this process has inherited, the working directory of its shell say, unless nobody else has it.
func exceptOwn(held []mounts.Holder) []mounts.Holder {
	others := slices.DeleteFunc(slices.Clone(held), func(h mounts.Holder) bool { return h.PID == os.Getpid() })
	if len(others) == 0 {
		return held
	}
	return others
}
