package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTrimNewline(t *testing.T) {
	for line, want := range map[string]string{
		"": "", "\n": "", "\r\n": "", "a": "a", "a\n": "a", "a\r\n": "a",
		"a\n\n": "a\n", "a\r": "a\r", " a \n": " a ", "a\nb\n": "a\nb", "\na": "\na",
	} {
		if got := string(trimNewline([]byte(line))); got != want {
			t.Errorf("trimNewline(%q) = %q, want %q", line, got, want)
		}
	}
}

func TestReadPassphraseBounds(t *testing.T) {
	for _, test := range []struct {
		size   int
		end    string
		tooBig bool
	}{
		{0, "", false}, {0, "\n", false}, {1, "", false},
		{maxPassphrase - 1, "\n", false}, {maxPassphrase, "", false},
		{maxPassphrase, "\n", false}, {maxPassphrase, "\r\n", false},
		{maxPassphrase + 1, "", true}, {maxPassphrase + 1, "\n", true},
		{maxPassphrase + 2, "", true}, {maxPassphrase + 100, "", true},
	} {
		text := strings.Repeat("x", test.size) + test.end
		got, err := readPassphrase(strings.NewReader(text))
		if tooBig := errors.Is(err, errLongPassphrase); tooBig != test.tooBig {
			t.Errorf("%d bytes and %q: %v", test.size, test.end, err)
		}
		if err == nil && string(got) != text {
			t.Errorf("%d bytes and %q: read %d bytes", test.size, test.end, len(got))
		}
	}
}

// openPTY returns both ends of a pseudo-terminal.
func openPTY(t *testing.T) (control, tty *os.File) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { control.Close() })
	fd := int(control.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return control, tty
}

// readUntil reads from the controlling end until the text has come, and
// returns all that came.
func readUntil(t *testing.T, control *os.File, text string) string {
	t.Helper()
	var got []byte
	buf := make([]byte, 256)
	for !bytes.Contains(got, []byte(text)) {
		n, err := control.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, buf[:n]...)
	}
	return string(got)
}

// waitEcho waits until the terminal shows what is typed, or does not.
func waitEcho(t *testing.T, tty *os.File, on bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if (state.Lflag&unix.ECHO != 0) == on {
			return
		}
	}
	t.Errorf("the terminal never changed to showing input: %v", on)
}

func TestAskShowsNothing(t *testing.T) {
	control, tty := openPTY(t)
	type answer struct {
		line []byte
		err  error
	}
	answers := make(chan answer)
	go func() {
		line, err := ask(t.Context(), tty, "passphrase of /data: ")
		answers <- answer{line, err}
	}()
	readUntil(t, control, "passphrase of /data: ")
	waitEcho(t, tty, false)
	if _, err := control.WriteString("correct horse\n"); err != nil {
		t.Fatal(err)
	}
	got := <-answers
	if got.err != nil || string(got.line) != "correct horse" {
		t.Errorf("read %q, %v", got.line, got.err)
	}
	waitEcho(t, tty, true)
	if _, err := tty.WriteString("done"); err != nil {
		t.Fatal(err)
	}
	if shown := readUntil(t, control, "done"); strings.Contains(shown, "horse") {
		t.Errorf("the terminal shows %q", shown)
	}
}

func TestAskInterrupted(t *testing.T) {
	control, tty := openPTY(t)
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error)
	go func() {
		_, err := ask(ctx, tty, "passphrase: ")
		errs <- err
	}()
	readUntil(t, control, "passphrase: ")
	waitEcho(t, tty, false)
	cancel()
	if err := <-errs; !errors.Is(err, errInterrupted) {
		t.Errorf("error is %v", err)
	}
	waitEcho(t, tty, true) // the terminal is as it was
	if _, err := control.WriteString("\n"); err != nil {
		t.Fatal(err) // ends the read that is left behind
	}
}
