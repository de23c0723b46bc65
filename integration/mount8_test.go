package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMount8 mounts by mount(8), by type and from fstab. It looks for the helper in /sbin; there the test puts it in a mount
// namespace of its own, so that nothing of the machine is touched.
func TestMount8(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "mount", "umount", "findmnt")
	r := newRig(t)
	sbin, err := filepath.EvalSymlinks("/sbin")
	if err != nil {
		t.Fatal(err)
	}
	r.write(r.below("fstab"), "# comment\n"+
		r.dir+" "+r.mnt+" envfs ro,noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=60,nodev,noatime,passphrase-file="+r.pass+" 0 0\n")
	r.write(r.below("private.sh"), `set -eu
helper=$(command -v envfs); mount=$(command -v mount)
mount -t tmpfs none "$SBIN"; ln -s "$helper" "$SBIN/mount.envfs"
show() { findmnt -n -o FSTYPE,SOURCE,OPTIONS "$CLEAR" | tr -s ' '; }
mount -t envfs -o "passphrase-file=$BASE/pass" "$DATA" "$CLEAR"
echo "by type: $(show)"; echo content > "$CLEAR/file"; umount "$CLEAR"
while ! mount -T "$BASE/fstab" "$CLEAR" 2> err; do grep -q 'in use by another process' err; done # the daemon of the first is ending
echo "from fstab: $(show)"; echo "content: $(cat "$CLEAR/file")"; umount "$CLEAR"
code=0; mount -t envfs -o "passphrase-file=$BASE/pass" "$DATA" "$BASE/missing" 2> err || code=$?
echo "missing: $code $(cat err)"
code=0; mount -t envfs -o "frobnicate,passphrase-file=$BASE/pass" "$DATA" "$CLEAR" 2> err || code=$?
echo "option: $code $(cat err)"
`)
	out := run(t, []string{"SBIN=" + sbin, "BASE=" + r.base, "DATA=" + r.dir, "CLEAR=" + r.mnt}, r.base,
		"unshare", "-m", "sh", "private.sh").ok().stdout
	for _, want := range []string{
		"by type: fuse.envfs " + r.dir + " rw,",
		"from fstab: fuse.envfs " + r.dir + " ro,",
		"noatime",
		"content: content\n",
		`option: 2 envfs: mount option "frobnicate": not known`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if r.isMounted() {
		t.Error("mounted outside of the namespace")
	}
	if _, err := os.Lstat(filepath.Join(sbin, "mount.envfs")); err == nil {
		t.Log("mount.envfs is installed on this machine; the test has not used it")
	}
}

// TestStartErrors: what goes wrong in the background is told by the command, on its standard error, once.
func TestStartErrors(t *testing.T) {
	r := newRig(t)
	r.write(r.below("wrong"), "battery staple\n")
	for _, flags := range [][]string{nil, {"-f"}} {
		for _, test := range []struct {
			flags    []string
			code     int
			patterns []string
		}{
			{[]string{"--passphrase-file", r.below("wrong")}, 3, []string{`^envfs: .*/data: wrong passphrase`}},
			{[]string{"--passphrase-file", r.pass, "--log-file", "missing/log"}, 1, []string{`^envfs: log file: open .*missing/log: no such file or directory$`}},
			{[]string{"--passphrase-file", r.pass, "-o", "frobnicate"}, 2, []string{`^envfs: mount option "frobnicate": not known$`}},
			{[]string{"--passphrase-file", r.pass, "--transit-key", "docs"}, 3, []string{`^envfs: .*no Transit key, but --transit-key was given$`}},
		} {
			unchanged(t, r.base, func() {
				res := r.envfs(append(append(append([]string{"mount", "--log-level", "error"}, flags...), test.flags...), r.dir, r.mnt)...)
				if n := strings.Count(res.stderr, "envfs: "); n != 1 {
					t.Errorf("%s: %d messages:\n%s", res.line, n, res.stderr)
				}
				res.fails(test.code, test.patterns...)
			})
			if r.isMounted() {
				t.Fatal("mounted")
			}
		}
	}
}

// TestLogFile writes messages into a file in each format.
func TestLogFile(t *testing.T) {
	r := newRig(t)
	for format, first := range map[string]string{
		"text": `time=2`, "json": `{"time":"2`,
	} {
		log := r.below("log." + format)
		r.envfs("mount", "--passphrase-file", r.pass, "--log-file", log, "--log-format", format, r.dir, r.mnt).ok()
		r.umount()
		lines := strings.Split(strings.TrimSpace(r.read(log)), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "mounted") || !strings.Contains(lines[1], "unmounted") {
			t.Errorf("%s: %q", format, lines)
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, first) || strings.Contains(line, "correct horse") {
				t.Errorf("%s: %q", format, line)
			}
		}
	}
	r.envfs("mount", "--passphrase-file", r.pass, "--log-file", "x", "--log-format", "xml", r.dir, r.mnt).
		fails(2, `must be one of text\|json`)
}
