package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/term"

	"github.com/envfs/envfs/internal/secret"
)

// maxPassphrase bounds what is read as a passphrase, in bytes.
const maxPassphrase = 64 << 10

var (
	errEmptyPassphrase = errors.New("the passphrase is empty")
	errLongPassphrase  = fmt.Errorf("the passphrase is longer than %d bytes", maxPassphrase)
	errMismatch        = errors.New("the two passphrases differ")
	errNoTerminal      = errors.New("no terminal to ask for the passphrase")
)

// passphraseSource says where a passphrase comes from: a file, else the output
// of a command, else the terminal.
type passphraseSource struct {
	file    string // "-" is standard input
	command string // for sh -c
	prompt  string // of the terminal
	twice   bool   // the terminal asks again, because a mistake would go unnoticed
}

// read returns the passphrase, without the newline that ends a line. The
// caller wipes it.
func (s passphraseSource) read(ctx context.Context, a *app) ([]byte, error) {
	passphrase, err := s.readLine(ctx, a)
	if err != nil {
		return nil, err
	}
	passphrase = trimNewline(passphrase)
	if len(passphrase) == 0 {
		return nil, errEmptyPassphrase
	}
	return passphrase, nil
}

func (s passphraseSource) readLine(ctx context.Context, a *app) ([]byte, error) {
	switch {
	case s.file == "-":
		return readPassphrase(a.stdin)
	case s.file != "":
		return s.fromFile(a)
	case s.command != "":
		return s.fromCommand(ctx, a)
	}
	return s.fromTerminal(ctx, a)
}

// trimNewline takes one newline away, that of DOS too.
func trimNewline(line []byte) []byte {
	trimmed := bytes.TrimSuffix(line, []byte("\n"))
	if len(trimmed) < len(line) {
		trimmed = bytes.TrimSuffix(trimmed, []byte("\r"))
	}
	return trimmed
}

// readPassphrase reads all of r into one buffer that never moves, so that no
// copy is left behind.
func readPassphrase(r io.Reader) ([]byte, error) {
	buf := make([]byte, maxPassphrase+3) // a newline, and one byte to notice that there are more
	n, err := io.ReadFull(r, buf)
	switch {
	case err == nil || len(trimNewline(buf[:n])) > maxPassphrase:
		err = errLongPassphrase
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return buf[:n], nil
	}
	secret.Wipe(buf)
	return nil, err
}

func (s passphraseSource) fromFile(a *app) ([]byte, error) {
	f, err := os.Open(s.file)
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", err)
	}
	defer f.Close() // only read
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o044 != 0 {
		a.warn("passphrase file %s can be read by others (mode %04o)", s.file, st.Mode().Perm())
	}
	passphrase, err := readPassphrase(f)
	if err != nil {
		return nil, fmt.Errorf("passphrase file %s: %w", s.file, err)
	}
	return passphrase, nil
}

func (s passphraseSource) fromCommand(ctx context.Context, a *app) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", s.command)
	cmd.Stdin = a.stdin
	cmd.Stderr = a.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("passphrase command: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("passphrase command: %w", err)
	}
	passphrase, err := readPassphrase(out)
	if closeErr := out.Close(); err == nil { // a command that says too much ends now
		err = closeErr
	}
	waitErr := cmd.Wait()
	if err == nil {
		err = waitErr
	}
	if err != nil {
		secret.Wipe(passphrase)
		return nil, fmt.Errorf("passphrase command: %w", err)
	}
	return passphrase, nil
}

func (s passphraseSource) fromTerminal(ctx context.Context, a *app) ([]byte, error) {
	tty, err := a.terminal()
	if err != nil {
		return nil, err
	}
	if tty != a.stdin {
		defer tty.Close() // what was written are prompts
	}
	first, err := ask(ctx, tty, s.prompt+": ")
	if err != nil || !s.twice || len(first) == 0 {
		return first, err
	}
	second, err := ask(ctx, tty, s.prompt+", again: ")
	same := bytes.Equal(first, second)
	secret.Wipe(second)
	if err == nil && !same {
		err = errMismatch
	}
	if err != nil {
		secret.Wipe(first)
		return nil, err
	}
	return first, nil
}

// terminal is where the user sits, also if standard input is something else.
func (a *app) terminal() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err == nil {
		return tty, nil
	}
	if term.IsTerminal(int(a.stdin.Fd())) {
		return a.stdin, nil
	}
	return nil, errNoTerminal
}

// ask reads a line without showing it. It gives up when ctx ends or a signal
// comes, and then leaves the terminal as it was.
func ask(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	ctx, stop := untilSignal(ctx)
	defer stop()
	fd := int(tty.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	fmt.Fprint(tty, prompt)
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		answers <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		err = term.Restore(fd, state)
		fmt.Fprintln(tty)
		return nil, errors.Join(errInterrupted, err)
	case got := <-answers:
		fmt.Fprintln(tty)
		if errors.Is(got.err, io.EOF) {
			return nil, errEmptyPassphrase
		}
		return got.line, got.err
	}
}
