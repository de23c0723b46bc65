package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/envfs/envfs/cmd/envfs/internal/logging"
	"github.com/envfs/envfs/cmd/envfs/internal/mountopt"
)

const mountLong = `Show the plaintext of the volume DIR at the directory MOUNTPOINT.

The command returns as soon as the mount is usable; a process in the background
serves it until it is unmounted. With -f the process stays in the foreground.
Whatever prevents the mount is printed here, with the exit code below.

After a crash nothing needs to be done but to mount again: an envfs at MOUNTPOINT
whose process is gone is cleared away.

SIGTERM or SIGINT to the process unmounts. If the mount is in use, the process
logs by whom, goes on serving, and unmounts as soon as it is free. A second
signal unmounts lazily: the mount disappears, but what is open stays usable, and
the process ends when the last of it has been closed. No data is dropped.

With --idle the process unmounts when for so long no request has come, no file
is open and no process has its working directory, root directory or program in
the mount.

With --audit-log, SIGHUP makes the process open that file anew, for programs
that rotate logs; otherwise a process in the foreground takes SIGHUP for its end,
and one in the background ignores it.

Options of -o, separated by commas and as in fstab:
  ro, rw                          read-only or read-write (default)
  allow_other                     let all users in, as permissions of files say;
                                  without it only the user who mounts gets in
  nonempty                        mount over a directory that is not empty
  noatime, relatime, strictatime, when reading updates access times (default:
  nodiratime                      as the file system of DIR does, which is
                                  always so for symbolic links)
  dev, nodev, suid, nosuid,       whether device nodes, set-user-ID bits and
  exec, noexec                    programs work (default: nodev,nosuid,exec)
  sync, dirsync                   handed to the kernel
  context=, fscontext=, …         security labels, handed to the kernel
  debug                           log each request
  fastopen                        the kernel opens and closes files itself:
                                  faster where many small files are read, but
                                  a refused key is reported when a file is
                                  read, not when it is opened; there is no
                                  O_TMPFILE, and no audit log
  audit-syslog, audit-required    as the flags below
  passphrase-file=, idle=, …      every long flag below that takes a value
Options that are meant for others (defaults, auto, noauto, user, nofail, _netdev,
x-*, comment=) are accepted. Quotes or a backslash protect a comma in a value.

From fstab, with envfs linked as /sbin/mount.envfs:
  /data  /mnt/clear  envfs  noauto,passphrase-file=/root/data.pass  0  0`

const mountExample = `  envfs mount /data /mnt/clear
  envfs mount -o ro,allow_other /data /mnt/clear
  envfs mount --passphrase-file /root/data.pass --idle 30m /data /mnt/clear
  VAULT_ADDR=https://vault:8200 envfs mount --transit-key docs /data2 /mnt/docs`

// The modes of --cache.
const (
	cacheWriteback    = "writeback"
	cacheWritethrough = "writethrough"
)

// The modes of --xattr.
const (
	xattrOn  = "on"
	xattrOff = "off"
)

// The modes of --crash-safety.
const (
	crashSafetyBlocks = "blocks"
	crashSafetyFull   = "full"
)

// mountRequest is a mount as a command line describes it, in a form that can
// be handed to a daemon. It holds no secret.
type mountRequest struct {
	Dir        string // ciphertext directory, absolute and free of symbolic links once checked
	Mountpoint string // likewise
	Keys       keySettings
	Options    mountopt.Options
	Cache      string        // cacheWriteback or cacheWritethrough
	Xattr      string        // xattrOn or xattrOff
	Safety     string        // crashSafetyBlocks or crashSafetyFull
	Idle       time.Duration // 0 = never
	Service    serviceSettings
	Audit      auditSettings
	Metrics    string // address, or "" for none
	Log        logSettings
}

// logSettings say where the log of a mount goes.
type logSettings struct {
	To     string // "" leaves the choice to the mount
	File   string
	Format string
	Level  slog.Level
}

// mountCommand is a command that mounts: envfs mount, and mount.envfs.
type mountCommand struct {
	app        *app
	request    mountRequest
	options    []string // values of -o
	foreground bool
	fake       bool // check, but mount nothing
	quiet      bool // say nothing if all goes well
}

func newMount(a *app) *cobra.Command {
	m := &mountCommand{app: a}
	cmd := &cobra.Command{
		Use:     "mount [flags] DIR MOUNTPOINT",
		Short:   "show a volume in the clear",
		Long:    mountLong,
		Example: mountExample,
		Args:    operands("DIR", "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m.request.Dir, m.request.Mountpoint = args[0], args[1]
			return m.run(cmd)
		},
	}
	cmd.Flags().BoolVarP(&m.foreground, "foreground", "f", false, "stay in the foreground")
	cmd.Flags().StringArrayVarP(&m.options, "options", "o", nil, "mount `OPTIONS`, separated by commas")
	m.addFlags(cmd.Flags())
	return cmd
}

// addFlags adds the long flags that are options of -o as well.
func (m *mountCommand) addFlags(flags *pflag.FlagSet) {
	m.request.Keys.addFlags(flags)
	m.request.Keys.addPinFlags(flags)
	flags.Var(newChoice(&m.request.Cache, cacheWriteback, cacheWriteback, cacheWritethrough), "cache",
		"when writes reach the ciphertext: as the kernel likes, or before write returns")
	flags.Var(newChoice(&m.request.Xattr, xattrOn, xattrOn, xattrOff), "xattr",
		"extended attributes and ACLs; without them ls -l asks for nothing, and what is stored stays")
	flags.Var(newChoice(&m.request.Safety, crashSafetyBlocks, crashSafetyBlocks, crashSafetyFull), "crash-safety",
		"what a power cut must leave old or new while it is overwritten: blocks written in part, or all")
	flags.DurationVar(&m.request.Idle, "idle", 0, "unmount after `DURATION` without use (such as 30m; default: never)")
	m.request.Service.addFlags(flags)
	m.request.Audit.addFlags(flags)
	flags.StringVar(&m.request.Metrics, "metrics", "", "serve metrics for Prometheus at http://`ADDR`/metrics; best a loopback address, such as 127.0.0.1:9466: anybody who gets there may read them")
	m.request.Log.addFlags(flags)
}

func (l *logSettings) addFlags(flags *pflag.FlagSet) {
	flags.Var(newChoice(&l.To, "", logging.Stderr, logging.Syslog, logging.Journal, logging.None), "log",
		"where messages go (default: stderr with -f, else syslog)")
	flags.StringVar(&l.File, "log-file", "", "append messages to `FILE`")
	flags.Var(newChoice(&l.Format, logging.Text, logging.Text, logging.JSON), "log-format", "form of messages")
	flags.TextVar(&l.Level, "log-level", slog.LevelInfo, "least `LEVEL` of messages: debug, info, warn or error")
}

// run mounts as flags and operands say.
func (m *mountCommand) run(cmd *cobra.Command) error {
	if err := m.applyOptions(cmd); err != nil {
		return err
	}
	if err := m.request.check(cmd); err != nil {
		return err
	}
	cfg, err := checkMount(&m.request)
	if errors.Is(err, errDeadMount) && !m.fake && m.clearDead() {
		cfg, err = checkMount(&m.request)
	}
	if err == nil {
		err = m.request.Audit.checkPlace(m.request.Dir, m.request.Mountpoint)
	}
	if err != nil || m.fake {
		return err
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	m.app.protect(m.app.log())
	passphrase, err := m.request.Keys.passphrase(ctx, m.app, m.request.Dir, cfg)
	if err != nil {
		return err
	}
	if m.foreground {
		return m.serveHere(ctx, passphrase)
	}
	return m.serveInBackground(ctx, passphrase)
}

// applyOptions reads the values of -o. An option that is a long flag sets it.
func (m *mountCommand) applyOptions(cmd *cobra.Command) error {
	isSetting := func(name string) bool {
		flag := cmd.Flags().Lookup(name)
		return flag != nil && flag.Value.Type() != "bool" && flag.Name != "options"
	}
	for _, text := range m.options {
		if err := m.request.Options.Parse(text, isSetting); err != nil {
			return err
		}
	}
	for _, s := range m.request.Options.Settings {
		flag := cmd.Flags().Lookup(s.Name)
		before := flag.Value.String()
		changed := flag.Changed
		if err := cmd.Flags().Set(s.Name, s.Value); err != nil {
			return &mountopt.Error{Option: s.Name, Reason: err.Error()}
		}
		if changed && flag.Value.String() != before {
			return usagef(cmd, "%s is given twice, as %q and as %q", s.Name, before, flag.Value)
		}
	}
	return nil
}

// check completes a request and finds what cannot be meant.
func (r *mountRequest) check(cmd *cobra.Command) error {
	r.Audit.Syslog = r.Audit.Syslog || r.Options.AuditSyslog
	r.Audit.Required = r.Audit.Required || r.Options.AuditRequired
	err := errors.Join(r.Keys.check(cmd), r.Service.check(cmd), r.Audit.check(cmd))
	if err != nil {
		return err
	}
	if r.Options.FastOpen && (r.Audit.File != "" || r.Audit.Syslog || r.Audit.Required) {
		return usagef(cmd, "with -o fastopen nothing tells who opens a file, so that no audit log can be kept")
	}
	if r.Idle < 0 {
		return usagef(cmd, "--idle must not be negative")
	}
	if r.Log.File != "" && r.Log.To != "" {
		return usagef(cmd, "--log and --log-file exclude each other")
	}
	if r.Log.File != "" {
		abs, err := filepath.Abs(r.Log.File)
		if err != nil {
			return err
		}
		r.Log.File = abs
	}
	return nil
}

// tell prints that the mount is usable.
func (m *mountCommand) tell(pid int, where string) {
	if m.quiet {
		return
	}
	how := "read-write"
	if m.request.Options.ReadOnly {
		how = "read-only"
	}
	fmt.Fprintf(m.app.stdout, "mounted %s at %s (%s); process %d, log: %s\n",
		m.request.Dir, m.request.Mountpoint, how, pid, where)
}
