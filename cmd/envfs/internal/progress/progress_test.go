package progress

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func options() Options {
	return Options{Verb: "rewrapped", Unit: "files", Number: func(n int64) string { return strconv.FormatInt(n, 10) }}
}

// TestLines: elsewhere than on a terminal there is a line every ten seconds, and none of short work.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := New(&out, options())
		for i := range int64(250) {
			m.Update(i, 2*i, i > 150)
			time.Sleep(100 * time.Millisecond)
		}
		m.Println("a line of its own")
		m.Close()
		time.Sleep(time.Minute)
		m.Update(1, 1, true)
		want := "envfs: rewrapped 100 of at least 200 files\nenvfs: rewrapped 200 of 400 files\na line of its own\n"
		if out.String() != want {
			t.Errorf("printed\n%s, want\n%s", out.String(), want)
		}
	})
}

// TestBar draws on a terminal: it moves, has no colours, and goes away.
func TestBar(t *testing.T) {
	terminal, screen := openTerminal(t)
	m := New(terminal, options())
	if m.bar == nil {
		t.Fatal("no bar on a terminal")
	}
	for i := range int64(4) {
		m.Update(i*100, 300, true) // full at the end, and then
		time.Sleep(110 * time.Millisecond)
	}
	m.Println("a line of its own")
	m.Close()
	m.Update(1, 1, true)
	if _, err := terminal.WriteString("end\n"); err != nil {
		t.Fatal(err)
	}
	text := screen("end")
	for _, want := range []string{"rewrapped", "100/", "200/", "a line of its own\r\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %q", want, text)
		}
	}
	for _, colour := range []string{"\x1b[3", "\x1b[0;3", "\x1b[1m"} {
		if strings.Contains(text, colour) {
			t.Errorf("a colour in %q", text)
		}
	}
	last := text[strings.LastIndex(text, "a line of its own"):]
	if line := last[strings.LastIndex(last, "\r"):]; strings.Contains(line, "rewrapped") {
		t.Errorf("the bar is still there: %q", last)
	}
}

func TestDumbTerminal(t *testing.T) {
	t.Setenv("TERM", "dumb")
	terminal, _ := openTerminal(t)
	if New(terminal, options()).bar != nil {
		t.Error("a bar on a terminal that cannot show it")
	}
}

// openTerminal makes a terminal and a function that returns what was written to it up to a word.
func openTerminal(t *testing.T) (*os.File, func(until string) string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, func(until string) string {
		var text strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(text.String(), until) {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(buf[:n])
		}
		return text.String()
	}
}
