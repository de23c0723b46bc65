package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/envfs/envfs/cmd/envfs/internal/logging"
	"github.com/envfs/envfs/internal/secret"
)

// app is what a command has of the world around it.
type app struct {
	stdin  *os.File
	stdout io.Writer
	stderr io.Writer
	env    func(name string) (string, bool) // os.LookupEnv
	// protect keeps what the process holds in memory to itself (secret.ProtectProcess). It cannot be taken back, so
	// that a test which runs commands in its own process leaves it out.
	protect func(log *slog.Logger)
}

func newApp() *app {
	return &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.LookupEnv, protect: secret.ProtectProcess}
}

// run carries out a command line, program name first, and returns the exit
// code.
func (a *app) run(args []string) int {
	root := newRoot(a)
	if isMountHelper(filepath.Base(args[0])) {
		root = newMountHelper(a)
	}
	root.SetArgs(args[1:])
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return a.report(root.ExecuteContext(context.Background()))
}

// untilSignal is for commands that have something to put in order when they are
// interrupted; the others just end.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// report prints an error as every command does, and returns its exit code.
func (a *app) report(err error) int {
	if err == nil {
		return exitOK
	}
	var exit *commandExit
	if errors.As(err, &exit) {
		return exit.code // the command has said why
	}
	f := describe(err)
	for line := range strings.Lines(f.Message) {
		fmt.Fprintf(a.stderr, "envfs: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if f.Hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", f.Hint)
	}
	return f.Code
}

// warn prints what the user should know although the command goes on.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "envfs: warning: %s\n", fmt.Sprintf(format, args...))
}

// log is the log of commands that end soon: warnings, as lines like all others.
func (a *app) log() *slog.Logger {
	return slog.New(logging.NewWarner(a.warn))
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "envfs",
		Short: "encrypt each file with its own key, wrapped by Vault or a passphrase",
		Long: `envfs keeps a directory of encrypted files and shows it in the clear through a
FUSE mount. Each file has a key of its own, which a key service wraps: Transit
of HashiCorp Vault or OpenBao, or a passphrase. The wrapped key stands in the
file itself, so a backup of the encrypted directory is complete.`,
		Example: `  envfs init /data                 make an encrypted volume, protected by a passphrase
  envfs mount /data /mnt/clear     show it in the clear
  envfs umount /mnt/clear          and hide it again`,
		Args: func(cmd *cobra.Command, args []string) error { return unknownCommand(cmd, args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(a.stderr)
			if err := cmd.Help(); err != nil {
				return err
			}
			return &usageError{command: cmd.CommandPath(), reason: "no command given"}
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newInit(a), newMount(a), newUmount(a), newStatus(a), newInfo(a), newPath(a), newPasswd(a), newRewrap(a), newRekey(a),
		newVerify(a), newFreeze(a), newThaw(a), newEncrypt(a), newDecrypt(a), newCat(a),
		newPolicy(a), newDoctor(a), newVersion(a), newCompletion(a), newMan(a), newDaemon(a))
	setUp(root)
	return root
}

// unknownCommand refuses arguments that are no command, naming close ones.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := &usageError{command: cmd.CommandPath(), reason: fmt.Sprintf("unknown command %q", args[0])}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err.reason += fmt.Sprintf("; is %q meant?", near[0])
	}
	return err
}
