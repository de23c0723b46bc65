package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMountOptions mounts with each option by itself, looks what the kernel has made of it, and tries what it is about.
func TestMountOptions(t *testing.T) {
	needRoot(t)
	need(t, "findmnt", "setpriv")
	r := newRig(t)
	for _, dir := range []string{filepath.Dir(r.base), r.base} { // the way for other users
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.mount("-o", "dev,suid")
	r.sh(`mkdir dir; echo old > old; touch -a -d 2020-01-01 old; mknod null c 1 3
		cp "$(command -v id)" id; chown 65534:65534 id; chmod 6755 id; chmod 755 .`)
	r.umount()

	const (
		runsAsOwner = `test "$(./id -u)" = 65534`
		runsAsRoot  = `test "$(./id -u)" = 0`
		devices     = `echo x > null`
		noDevices   = `! (echo x > null) 2> /dev/null`
		others      = `setpriv --reuid=65534 --clear-groups cat "$CLEAR/old" > /dev/null 2>&1`
		writable    = `echo new > new; rm new`
		dirOld      = `touch -a -d 2020-01-01 dir; ls dir > /dev/null; test "$(stat -c %X dir)" = "$(date -d 2020-01-01 +%s)"`
		untouched   = `touch -a -d 2020-01-01 old; cat old > /dev/null; test "$(stat -c %X old)" = "$(date -d 2020-01-01 +%s)"`
	)
	usual := strings.Join([]string{runsAsRoot, noDevices, writable, "! " + others}, "; ")
	for option, test := range map[string]struct {
		shows string // words that the kernel shows; after a "!" one that it does not
		tries string
	}{
		"rw":          {"rw nosuid nodev relatime !noexec !allow_other !noatime", usual},
		"ro":          {"ro", `! (echo x > new) 2> /dev/null; ! rm -f old 2> /dev/null; ! chmod 600 old 2> /dev/null; grep -q old old`},
		"ro,rw":       {"rw !ro", writable},
		"allow_other": {"allow_other default_permissions", others + "; chmod 600 old; ! " + others + "; chmod 644 old"},
		"noatime":     {"noatime !relatime", untouched + "; " + dirOld},
		"relatime":    {"relatime !noatime", usual},
		"strictatime": {"!noatime", usual},
		"dev":         {"!nodev nosuid", devices},
		"dev,nodev":   {"nodev", noDevices},
		"suid":        {"!nosuid nodev", runsAsOwner},
		"suid,nosuid": {"nosuid", runsAsRoot},
		"exec":        {"!noexec", runsAsRoot},
		"noexec":      {"noexec", `! ./id 2> /dev/null`},
		"sync":        {"sync", usual},
		"dirsync":     {"dirsync", usual},
		"nodiratime":  {"nodiratime", dirOld + "; " + usual},
		"lazytime":    {"rw", usual},
		"debug":       {"rw", writable},

		"defaults,async,diratime,auto,noauto,nouser,users,owner,group":              {"rw nosuid nodev !noexec", usual},
		"_netdev,nofail,comment=a word":                                             {"rw !comment", usual},
		"x-systemd.automount,x-systemd.idle-timeout=5min,x-gvfs-hide,X-mount.mkdir": {"rw !x-gvfs-hide", usual},
		"idle=30m,cache=writethrough,log-level=warn,key-ttl=1m":                     {"rw", usual},
	} {
		t.Run(option, func(t *testing.T) {
			r := *r
			r.t = t
			r.mount("-o", option)
			defer r.umount()
			shown := strings.Split(strings.TrimSpace(run(t, nil, r.base, "findmnt", "-n", "-o", "OPTIONS", r.mnt).ok().stdout), ",")
			for word := range strings.FieldsSeq(test.shows) {
				word, not := strings.CutPrefix(word, "!")
				if slices.Contains(shown, word) == not {
					t.Errorf("-o %s shows %q; as for %q that is wrong", option, shown, word)
				}
			}
			r.sh("set +e; failed() { echo \"fails: $1\" >&2; exit 1; }\n" + eachOf(test.tries))
		})
	}

	// Over a directory that is not empty only if it is told to.
	r.write(r.path("hidden"), "stays")
	r.refusesMount(1, r.mountFlags, r.dir, r.mnt, `mountpoint is not empty$`)
	r.mount("-o", "nonempty")
	if _, err := os.Lstat(r.path("hidden")); err == nil {
		t.Error("what the mount hides is seen")
	}
	r.umount()
	if got := r.read(r.path("hidden")); got != "stays" {
		t.Errorf("%q", got)
	}
}

// eachOf makes a script of which every command must succeed, also one that begins with "!".
func eachOf(commands string) (script string) {
	for command := range strings.SplitSeq(commands, "; ") {
		script += command + " || failed '" + strings.ReplaceAll(command, "'", `'\\''`) + "'\n"
	}
	return script
}
