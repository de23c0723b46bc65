package integration

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSystemLogs mounts with messages to syslog and to the journal, whose sockets are the test's in a mount namespace of its own.
func TestSystemLogs(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "mount")
	r := newRig(t)
	r.write(filepath.Join(r.dir, "foreign"), "not ours") // of which a mount warns
	dir, err := os.MkdirTemp("", "logs")                 // a short path: a socket's has no room for more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	syslog, journal := listenAt(t, filepath.Join(dir, "syslog")), listenAt(t, filepath.Join(dir, "journal"))

	r.write(r.below("private.sh"), `set -eu
mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/fuse c 10 229
touch /dev/log; mount --bind "$LOGS/syslog" /dev/log
mount -t tmpfs none /run; mkdir -p /run/systemd/journal
touch /run/systemd/journal/socket; mount --bind "$LOGS/journal" /run/systemd/journal/socket
once() { envfs mount "$@" --passphrase-file "$BASE/pass" "$DATA" "$CLEAR"; ls "$CLEAR"; envfs umount "$CLEAR"; }
once; once --log syslog --log-format json; once --log journal; once --log journal --log-format json --log-level warn
umount /dev/log /run/systemd/journal/socket; rm /dev/log /run/systemd/journal/socket
for to in syslog journal; do
	code=0; envfs mount --log $to --passphrase-file "$BASE/pass" "$DATA" "$CLEAR" || code=$?; echo "without $to: $code"
done
envfs mount --passphrase-file "$BASE/pass" "$DATA" "$CLEAR"; envfs umount "$CLEAR"
`)
	res := run(t, []string{"BASE=" + r.base, "DATA=" + r.dir, "CLEAR=" + r.mnt, "LOGS=" + dir}, r.base, "unshare", "-m", "sh", "private.sh").ok()
	expect := func(what, text string, patterns ...string) {
		t.Helper()
		for _, pattern := range patterns {
			if !regexp.MustCompile(pattern).MatchString(text) {
				t.Errorf("%s: no %q in\n%s", what, pattern, text)
			}
		}
	}
	expect("commands", res.stdout, `log: syslog\n`, `log: the journal\n`, `without syslog: 1\n`, `without journal: 1\n`,
		`log: none, since no syslog answers; --log-file keeps one\n`)
	expect("commands", res.stderr, `(?m)^envfs: syslog: `, `(?m)^envfs: journal: no journal on this machine$`)

	heard := syslog()
	expect("syslog", heard,
		`(?m)^<30>.* envfs\[[0-9]+\]: level=INFO msg=mounted .*mountpoint=`, `(?m)^<28>.* envfs\[[0-9]+\]: level=WARN .* name=foreign$`,
		`(?m)^<30>.*: level=INFO msg=unmounted`, `(?m)^<30>.*: \{"level":"INFO","msg":"mounted",.*\}$`, `(?m)^<28>.*: \{"level":"WARN",.*"name":"foreign"\}$`)
	if n := strings.Count(heard, "foreign"); n != 2 {
		t.Errorf("syslog heard of the foreign file %d times, want once in each of 2 mounts:\n%s", n, heard)
	}
	heard = journal()
	expect("journal", heard, `PRIORITY=6\nMESSAGE=level=INFO msg=mounted `, `PRIORITY=4\nMESSAGE=level=WARN .*name=foreign\n`,
		`SYSLOG_IDENTIFIER=envfs\n`, `PRIORITY=4\nMESSAGE=\{"level":"WARN",.*"name":"foreign"\}\n`)
	if strings.Contains(heard, `"level":"INFO"`) {
		t.Errorf("the journal heard what --log-level leaves out:\n%s", heard)
	}
	if strings.Contains(heard, "time=") || strings.Contains(heard, `"time"`) {
		t.Errorf("messages with a time of their own beside the journal's:\n%s", heard)
	}
}

// listenAt makes a socket for datagrams. The function returns what has come until it is called.
func listenAt(t *testing.T, path string) (heard func() string) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // only read
	const end = "the end"
	all := make(chan string, 1)
	go func() {
		var text strings.Builder
		for buf := make([]byte, 1<<16); ; {
			n, err := c.Read(buf)
			if err != nil || string(buf[:n]) == end {
				all <- text.String()
				return
			}
			text.WriteString(strings.TrimSuffix(string(buf[:n]), "\n") + "\n")
		}
	}()
	return func() string {
		t.Helper()
		last, err := net.Dial("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer last.Close()
		if _, err := last.Write([]byte(end)); err != nil {
			t.Fatal(err)
		}
		return <-all
	}
}
