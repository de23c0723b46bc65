package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/cmd/envfs/internal/logging"
)

// newDaemon is the command of the process in the background. Only serveInBackground
// starts it.
func newDaemon(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "daemon DIR MOUNTPOINT",
		Short:  "serve a mount in the background (started by envfs mount)",
		Hidden: true,
		Args:   operands("DIR", "MOUNTPOINT"), // for people who look at the list of processes
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := newDaemonProcess(a)
			if err != nil {
				return usagef(cmd, "%v", err)
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return d.run(ctx)
		},
	}
}

// daemonProcess is a mount in the process that serves it in the background.
type daemonProcess struct {
	app                         *app
	request, passphrase, status *os.File
}

func newDaemonProcess(a *app) (*daemonProcess, error) {
	d := &daemonProcess{app: a}
	for fd, file := range map[int]**os.File{requestFD: &d.request, passphraseFD: &d.passphrase, statusFD: &d.status} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
			return nil, errors.New("only envfs mount can start a daemon")
		}
		unix.CloseOnExec(fd) // mount helpers shall not hold them
		*file = os.NewFile(uintptr(fd), fmt.Sprintf("pipe %d", fd))
	}
	return d, nil
}

// run serves the mount. Until it is usable, an error goes to the process that
// started this one, which prints it; later ones go to the log.
func (d *daemonProcess) run(ctx context.Context) error {
	signal.Ignore(syscall.SIGHUP)
	isReady := false
	err := d.serve(ctx, func(log *logging.Log, keepStderr bool) {
		isReady = true
		d.detach(log, keepStderr)
		d.tell(log, daemonStatus{Log: log.Where})
	})
	if err != nil && !isReady {
		f := describe(err)
		if sendErr := json.NewEncoder(d.status).Encode(daemonStatus{Failure: &f}); sendErr == nil {
			d.detachFrom(os.DevNull) // it is not printed twice
		}
	}
	return err
}

func (d *daemonProcess) serve(ctx context.Context, ready func(log *logging.Log, keepStderr bool)) error {
	var request mountRequest
	if err := json.NewDecoder(d.request).Decode(&request); err != nil {
		return fmt.Errorf("reading what to mount: %w", err)
	}
	passphrase, err := readPassphrase(d.passphrase)
	if err != nil {
		return fmt.Errorf("passphrase: %w", err)
	}
	log, err := d.openLog(request.Log)
	if err != nil {
		return err
	}
	s := session{
		request: request,
		log:     log,
		ready:   func() { ready(log, request.Log.To == logging.Stderr) },
		ending:  func() {},
		signals: make(chan os.Signal, 4),
	}
	signal.Notify(s.signals, syscall.SIGTERM, os.Interrupt)
	err = s.serve(ctx, passphrase)
	if err != nil {
		log.Error("the mount failed", "err", err)
	}
	return errors.Join(err, log.Close())
}

func (d *daemonProcess) openLog(l logSettings) (*logging.Log, error) {
	if l.To == "" && l.File == "" {
		return logging.OpenDaemon(l.options(d.app))
	}
	return logging.Open(l.options(d.app))
}

// detach leaves the terminal of the process that started this one. What the
// Go runtime says when it ends goes to the log file, if there is one.
func (d *daemonProcess) detach(log *logging.Log, keepStderr bool) {
	switch {
	case keepStderr:
		return
	case log.File != "":
		d.detachFrom(log.File)
	default:
		d.detachFrom(os.DevNull)
	}
}

func (d *daemonProcess) detachFrom(replacement string) {
	f, err := os.OpenFile(replacement, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return
	}
	defer f.Close() // its copy stays
	_ = unix.Dup3(int(f.Fd()), int(os.Stderr.Fd()), 0)
}

// tell sends the one message. Should nobody read it any more, the mount stays.
func (d *daemonProcess) tell(log *logging.Log, status daemonStatus) {
	if err := json.NewEncoder(d.status).Encode(status); err != nil {
		log.Warn("the process that mounted is gone", "err", err)
	}
	_ = d.status.Close() // the message has been written
}
