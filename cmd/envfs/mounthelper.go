package main

import "github.com/spf13/cobra"

const mountHelperLong = `Mount a volume as envfs mount does. mount(8) runs this program for
"mount -t envfs" and for the lines of fstab with the type envfs, if it is linked
as /sbin/mount.envfs. See envfs mount --help for the options.`

// isMountHelper tells whether the program was started by mount(8), which finds
// the helper of a file system by its name.
func isMountHelper(program string) bool {
	return program == "mount.envfs" || program == "mount.fuse.envfs"
}

// newMountHelper is the command that mount(8) runs for the type envfs:
//
//	mount.envfs SOURCE TARGET [-sfnv] [-o OPTIONS] [-N NAMESPACE] [-t TYPE]
//
// -f means "fake" here: everything is checked and nothing is mounted.
func newMountHelper(a *app) *cobra.Command {
	m := &mountCommand{app: a}
	var ignored struct {
		noMtab, readWrite bool
		kind              string
	}
	var verbose, readOnly bool
	var namespace string
	cmd := &cobra.Command{
		Use:     "mount.envfs [flags] DIR MOUNTPOINT",
		Short:   "the helper of mount(8) for envfs",
		Long:    mountHelperLong,
		Example: "  mount -t envfs -o passphrase-file=/root/data.pass /data /mnt/clear",
		Args:    operands("DIR", "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m.request.Dir, m.request.Mountpoint = args[0], args[1]
			m.quiet = !verbose
			if namespace != "" {
				return usagef(cmd, "-N is not supported: enter the namespace first, as with nsenter")
			}
			if readOnly {
				m.options = append(m.options, "ro")
			}
			return m.run(cmd)
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&m.options, "options", "o", nil, "mount `OPTIONS`, separated by commas")
	flags.BoolVarP(&m.fake, "fake", "f", false, "check everything, mount nothing")
	flags.BoolVarP(&m.request.Options.Sloppy, "sloppy", "s", false, "ignore options that are not known")
	flags.BoolVarP(&verbose, "verbose", "v", false, "say what was mounted")
	flags.BoolVarP(&readOnly, "read-only", "r", false, "the same as -o ro")
	flags.StringVarP(&namespace, "mount-namespace", "N", "", "not supported")
	flags.BoolVarP(&ignored.noMtab, "no-mtab", "n", false, "without effect")
	flags.BoolVarP(&ignored.readWrite, "rw", "w", false, "without effect")
	flags.StringVarP(&ignored.kind, "type", "t", "", "without effect")
	m.addFlags(flags)
	setUp(cmd)
	return cmd
}
