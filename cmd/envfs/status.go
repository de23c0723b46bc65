package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/internal/control"
)

const statusLong = `Say how the mount at MOUNTPOINT is doing, or all of your mounts (as root: all).

The process that serves a mount is asked: whether its key service answers and
for how long it is logged in, how many keys it has at hand, what it asked the
service and how long that took, what applications did, and whether files wait to
be sealed. Counts are since it was mounted, latencies are those of the last five
minutes. Nothing is asked of Vault itself: see envfs doctor for that.

It exits with 1 if a mount does not answer.`

const statusExample = `  envfs status
  envfs status /mnt/clear
  envfs status --json | jq '.mounts[].status.key_requests'`

// statusTimeout is how long a mount may take to answer.
const statusTimeout = 10 * time.Second

func newStatus(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status [flags] [MOUNTPOINT]",
		Short:   "say how mounts are doing",
		Long:    statusLong,
		Example: statusExample,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef(cmd, "one argument too many: %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := statusMounts(args)
			if err != nil {
				return err
			}
			report, failed := askStatus(cmd.Context(), a, found)
			if asJSON {
				err = writeJSON(a, report)
			} else {
				err = report.write(a.stdout, time.Now())
			}
			return errors.Join(err, failed)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// statusMounts are the mounts that the arguments mean.
func statusMounts(args []string) (mounts.Table, error) {
	if len(args) == 1 {
		m, err := findMount(args[0])
		return mounts.Table{m}, err
	}
	table, err := mounts.Read()
	if err != nil {
		return nil, err
	}
	return ownMounts(table, uint32(os.Geteuid())), nil
}

// ownMounts are the mounts of envfs that a user may ask, each once, wherever it
// is shown.
func ownMounts(table mounts.Table, uid uint32) mounts.Table {
	var own mounts.Table
	seen := map[mounts.Device]bool{}
	for _, m := range table {
		if m.IsEnvfs() && !seen[m.Device] && (uid == 0 || m.UID == uid) {
			seen[m.Device] = true
			own = append(own, m)
		}
	}
	return own
}

// askStatus asks each mount. The error is that of the first that does not
// answer; the others are asked all the same.
func askStatus(ctx context.Context, a *app, table mounts.Table) (report statusReport, failed error) {
	report.Mounts = []mountReport{} // never null in JSON
	for _, m := range table {
		r := mountReport{Mountpoint: m.Point, Directory: m.Source}
		var s mountStatus
		inTime, cancel := context.WithTimeout(ctx, statusTimeout)
		err := askMount(inTime, a, m, methodStatus, nil, &s)
		cancel()
		if err != nil {
			r.Error = err.Error()
			if failed == nil {
				failed = about(m.Point, err)
			}
		} else {
			r.Status = &s
		}
		report.Mounts = append(report.Mounts, r)
	}
	return report, failed
}

// askMount calls a method of the process that serves a mount, which may take as
// long as ctx lets it; see control.Ask.
func askMount(ctx context.Context, a *app, m mounts.Mount, method string, params, result any) error {
	uid := os.Geteuid()
	runtimeDir, _ := a.env("XDG_RUNTIME_DIR")
	if uid == 0 { // root asks the mounts of others where they are by default
		uid, runtimeDir = int(m.UID), ""
	}
	path, err := controlPath(uid, runtimeDir, m.Device)
	if errors.Is(err, control.ErrNoDirectory) {
		return fmt.Errorf("%w: %w", control.ErrNotServing, err)
	}
	if err != nil {
		return err
	}
	return control.Ask(ctx, path, method, params, result)
}
