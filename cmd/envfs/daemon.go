package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/secret"
)

// A mount in the background is served by a second process of the same program,
// "envfs daemon DIR MOUNTPOINT", in a session of its own. What it shall do comes
// through pipes: nothing of it appears in the list of processes, and the
// passphrase is never in an argument or the environment.
const (
	requestFD    = 3 // daemon reads: the mountRequest, as JSON
	passphraseFD = 4 // daemon reads: the passphrase, to the end of file
	statusFD     = 5 // daemon writes: one daemonStatus, as JSON
)

// daemonStatus is the first and only message of a daemon.
type daemonStatus struct {
	Failure *failure `json:"failure,omitempty"` // nil: the mount is usable
	Log     string   `json:"log,omitempty"`     // where its log goes
}

// serveInBackground starts a daemon and returns when the mount is usable, or
// with the error that prevents it.
func (m *mountCommand) serveInBackground(ctx context.Context, passphrase []byte) error {
	defer secret.Wipe(passphrase)
	request, err := json.Marshal(m.request)
	if err != nil {
		return err
	}
	p, err := newDaemonPipes()
	if err != nil {
		return err
	}
	var senders sync.WaitGroup
	defer senders.Wait() // until p.close has ended them
	defer p.close()
	cmd, err := m.daemonCommand(p)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the daemon: %w", err)
	}
	p.closeDaemonEnds()
	// A daemon that ends early reads neither; its status says why.
	senders.Go(func() { p.request.send(request) })
	senders.Go(func() { p.passphrase.send(passphrase) })
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	status, err := readStatus(p.status.r)
	if err != nil {
		return errors.Join(err, cmd.Wait())
	}
	if status.Failure != nil {
		_ = cmd.Wait() // its exit code is in the status already
		return status.Failure
	}
	m.tell(cmd.Process.Pid, status.Log)
	return cmd.Process.Release()
}

// daemonCommand prepares the second process.
func (m *mountCommand) daemonCommand(p *daemonPipes) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	// What the caller had open, a lock file of a shell script say, must not stay open for as long as the mount lives.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil && err != unix.ENOSYS {
		return nil, fmt.Errorf("keeping inherited files from the daemon: %w", err)
	}
	env, err := daemonEnv(os.Environ())
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path:       program,
		Args:       []string{"envfs", "daemon", m.request.Dir, m.request.Mountpoint},
		Env:        env,
		Dir:        "/",       // so that no other mount is kept busy
		Stderr:     os.Stderr, // until the mount is usable
		ExtraFiles: []*os.File{p.request.r, p.passphrase.r, p.status.w},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid: true, // signals of the terminal are not for it
		},
	}
	return cmd, nil
}

// daemonEnv makes the paths in Vault's variables independent of the working
// directory, which the daemon leaves. The service manager hears of the
// foreground only.
func daemonEnv(environ []string) ([]string, error) {
	var env []string
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		switch name {
		case "NOTIFY_SOCKET":
			continue
		case "VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY":
			if value == "" {
				break
			}
			abs, err := filepath.Abs(value)
			if err != nil {
				return nil, err
			}
			variable = name + "=" + abs
		}
		env = append(env, variable)
	}
	return env, nil
}

// readStatus waits for the message of a daemon.
func readStatus(r io.Reader) (daemonStatus, error) {
	var status daemonStatus
	err := json.NewDecoder(r).Decode(&status)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errDaemonEnded
	}
	return status, err
}

// pipe is both ends of a pipe.
type pipe struct{ r, w *os.File }

func (p *pipe) open() (err error) {
	p.r, p.w, err = os.Pipe()
	return err
}

// send writes all of data and closes its end.
func (p *pipe) send(data []byte) {
	_, _ = p.w.Write(data) // fails only if the daemon has ended, which its status tells
	_ = p.w.Close()
}

// daemonPipes connect the process that mounts and its daemon.
type daemonPipes struct{ request, passphrase, status pipe }

func newDaemonPipes() (*daemonPipes, error) {
	p := &daemonPipes{}
	err := errors.Join(p.request.open(), p.passphrase.open(), p.status.open())
	if err != nil {
		p.close()
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return p, nil
}

// closeDaemonEnds leaves those ends to the daemon alone, so that its end shows.
func (p *daemonPipes) closeDaemonEnds() {
	for _, f := range []*os.File{p.request.r, p.passphrase.r, p.status.w} {
		_ = f.Close() // nothing was written
	}
}

func (p *daemonPipes) close() {
	for _, f := range []*os.File{p.request.r, p.request.w, p.passphrase.r, p.passphrase.w, p.status.r, p.status.w} {
		if f != nil {
			_ = f.Close() // what was written has been read, or is of no use any more
		}
	}
}
