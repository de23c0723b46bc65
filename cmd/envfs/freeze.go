package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/internal/control"
)

const freezeLong = `Make the ciphertext of the mount at MOUNTPOINT complete and still, for a snapshot
of the file system that holds it.

What applications have written is written out, every file is sealed, also those
that are open, everything is synced, and all further changes are held until envfs
thaw. Reading goes on, except of a file or directory in which a change waits.
What an application writes while the mount is being frozen may be in the snapshot
or not, as after a power cut; what it synced before it wrote more is in.

With COMMAND, the mount is frozen, the command runs, and the mount is thawed when
it has ended in whatever way, or when envfs itself has. The exit code is that of
the command, as a shell tells it. The command must not write to the mount.

Changes are held for no longer than --timeout. Then the mount thaws by itself,
and the snapshot is worth no more than any copy of a volume in use: envfs thaw
fails, and so does envfs freeze, after its command. SIGTERM to the process of the
mount thaws as well. An envfs rewrap beside the mount is not held.`

const freezeExample = `  envfs freeze /mnt/clear -- lvcreate --snapshot --size 5G --name snap vg/data
  envfs freeze /mnt/clear -- btrfs subvolume snapshot -r /srv /srv/.snap
  envfs freeze --timeout 30s /mnt/clear`

const thawLong = `Let the changes go on that envfs freeze holds at MOUNTPOINT.

It fails if the mount is not frozen, which after a freeze means that its timeout
has passed: the snapshot may not be complete then.`

const thawExample = `  envfs thaw /mnt/clear`

// defaultFreezeLimit is longer than any snapshot takes, and shorter than people wait before they reset a machine.
const defaultFreezeLimit = 5 * time.Minute

type freezeCommand struct {
	app   *app
	limit time.Duration
}

func newFreeze(a *app) *cobra.Command {
	f := &freezeCommand{app: a}
	cmd := &cobra.Command{
		Use:     "freeze [flags] MOUNTPOINT [-- COMMAND ARG...]",
		Short:   "hold all changes of a mount, for a snapshot",
		Long:    freezeLong,
		Example: freezeExample,
		Args:    freezeOperands,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.limit < 0 {
				return usagef(cmd, "--timeout must not be negative")
			}
			if len(args) == 1 {
				return f.freeze(cmd.Context(), args[0])
			}
			return f.freezeFor(cmd.Context(), args[0], args[1:])
		},
	}
	cmd.Flags().DurationVar(&f.limit, "timeout", defaultFreezeLimit, "hold changes no longer than `DURATION`; 0: as long as it takes")
	return cmd
}

// freezeOperands demands the two dashes, so that a flag of the command is never taken for one of envfs.
func freezeOperands(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0:
		return usagef(cmd, "MOUNTPOINT is missing")
	case dash < 0 && len(args) > 1, dash > 1:
		return usagef(cmd, "one argument too many: %q; a command stands after --", args[1])
	case dash == 1 && len(args) == 1:
		return usagef(cmd, "the command after -- is missing")
	}
	return nil
}

func newThaw(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "thaw MOUNTPOINT",
		Short:   "let the changes of a frozen mount go on",
		Long:    thawLong,
		Example: thawExample,
		Args:    operands("MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := findMount(args[0])
			if err != nil {
				return err
			}
			return thaw(cmd.Context(), a, m, frozen{})
		},
	}
}

// freeze freezes and leaves the mount so.
func (f *freezeCommand) freeze(ctx context.Context, path string) error {
	m, err := findMount(path)
	if err != nil {
		return err
	}
	if _, err := f.begin(ctx, m); err != nil {
		return err
	}
	until := "until it is thawed"
	if f.limit > 0 {
		until = "for " + showTime(f.limit) + " at most"
	}
	fmt.Fprintf(f.app.stdout, "frozen %s; next: envfs thaw %s\n", until, quote(m.Point))
	return nil
}

func (f *freezeCommand) begin(ctx context.Context, m mounts.Mount) (frozen, error) {
	ctx, stop := untilSignal(ctx) // gives up what is under way
	defer stop()
	var now frozen
	err := askMount(ctx, f.app, m, methodFreeze, freezeParams{Limit: f.limit}, &now)
	if err != nil {
		return now, about(m.Point, freezeError(err))
	}
	if now.Unsealed > 0 {
		f.app.warn("%s: %d files could not be sealed; the log of the mount names them", m.Point, now.Unsealed)
	}
	return now, nil
}

// thaw ends a freeze: that one, or with the zero value whichever there is.
func thaw(ctx context.Context, a *app, m mounts.Mount, which frozen) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	return about(m.Point, freezeError(askMount(ctx, a, m, methodThaw, which, nil)))
}

// freezeError turns the answer of a mount into an error of this program.
func freezeError(err error) error {
	var answer *control.Error
	if !errors.As(err, &answer) {
		return err
	}
	for _, class := range []error{errFrozen, errThawed, errEnding} {
		if answer.Code == freezeCode(class) {
			return class
		}
	}
	return err
}

// freezeFor freezes while a command runs.
func (f *freezeCommand) freezeFor(ctx context.Context, path string, command []string) error {
	program, err := exec.LookPath(command[0]) // before anybody has to wait for it
	if err != nil {
		return err
	}
	m, err := findMount(path)
	if err != nil {
		return err
	}
	now, err := f.begin(ctx, m)
	if err != nil {
		return err
	}
	// The mount thaws when this connection ends, however this process does.
	held, release := context.WithCancel(ctx)
	defer release()
	ended := make(chan error, 1)
	go func() { ended <- askMount(held, f.app, m, methodHold, now, nil) }()
	failed := f.run(program, command)
	early := thaw(ctx, f.app, m, now)
	release()
	<-ended
	if errors.Is(early, errThawed) {
		early = about(m.Point, errThawedEarly)
	}
	if failed != nil && early != nil {
		f.app.warn("%v", early)
		early = nil
	}
	return errors.Join(failed, early)
}
