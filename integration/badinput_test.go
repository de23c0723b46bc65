package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// refusesMount tries to mount, in vain. Nothing below the rig's directory changes.
func (r *rig) refusesMount(code int, flags []string, dir, mnt string, patterns ...string) {
	r.t.Helper()
	before := mountpoints(r.t, r.base)
	check := func() {
		r.t.Helper()
		r.envfs(append(append([]string{"mount", "--log", "none"}, flags...), dir, mnt)...).fails(code, patterns...)
	}
	if before == nil {
		unchanged(r.t, r.base, check)
	} else { // the tree of a mount is that of its volume
		unchanged(r.t, r.dir, check)
	}
	if after := mountpoints(r.t, r.base); len(after) != len(before) {
		r.t.Errorf("mounted: %v, before: %v", after, before)
	}
}

// TestMountRefusesConfig mounts volumes whose configuration is not what it should be.
func TestMountRefusesConfig(t *testing.T) {
	r := newRig(t)
	r.mount()
	r.write(r.path("letter"), "Dear reader")
	r.umount()
	r.write(r.below("wrong"), "battery staple\n")
	other := filepath.Join(r.base, "other")
	r.envfs("init", "--argon2-time", "1", "--passphrase-file", r.pass, other).ok()
	config := filepath.Join(r.dir, "envfs.json")
	good := r.read(config)
	replaced := func(old, with string) string {
		t.Helper()
		if strings.Count(good, old) != 1 {
			t.Fatalf("envfs.json does not hold %q once:\n%s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}

	for _, test := range []struct {
		name     string
		config   string
		code     int
		patterns []string
	}{
		{"newer format", replaced(`"format": 1`, `"format": 2`), 1, []string{`^envfs: .*newer version of envfs`, `^hint: use the version of envfs`}},
		{"newer format with fields of its own", `{"format": 9, "what": {"ever": 1}}`, 1, []string{`newer version of envfs`}},
		{"format 0", replaced(`"format": 1`, `"format": 0`), 5, []string{`^envfs: .*envfs.json is damaged`}},
		{"empty", "", 5, []string{`envfs.json is damaged`}},
		{"cut by one byte", strings.TrimRight(good, "\n")[:len(strings.TrimRight(good, "\n"))-1], 5, []string{`envfs.json is damaged`}},
		{"cut in half", good[:len(good)/2], 5, []string{`envfs.json is damaged`, `^hint: restore envfs.json from a backup`}},
		{"too large", good + strings.Repeat(" ", 70_000), 5, []string{`envfs.json is damaged`}},
		{"something after it", good + "{}", 5, []string{`envfs.json is damaged`}},
		{"unknown field", replaced(`"format": 1,`, `"format": 1, "more": true,`), 5, []string{`envfs.json is damaged`}},
		{"changed field", replaced(`"slot_size": 512`, `"slot_size": 1024`), 5, []string{`envfs.json is damaged`}},
		{"no JSON", "\x00\x01\x02", 5, []string{`envfs.json is damaged`}},
		{"huge Argon2 memory", replaced(`"memory_kib": 65536`, `"memory_kib": 4294967295`), 5, []string{`envfs.json is damaged`}},
		{"of another volume", r.read(filepath.Join(other, "envfs.json")), 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.write(config, test.config)
			defer r.write(config, good)
			if test.code == 0 { // opens, and shows nothing of what is not its own
				r.mount()
				if entries, err := os.ReadDir(r.mnt); err != nil || len(entries) != 0 {
					t.Errorf("a volume of the same passphrase shows %v %v", entries, err)
				}
				r.umount()
				return
			}
			r.refusesMount(test.code, r.mountFlags, r.dir, r.mnt, test.patterns...)
		})
	}

	t.Run("forged", func(t *testing.T) {
		r := *r
		r.t = t
		// The checksum is right: it is nobody's secret. The MAC is not.
		r.write(config, withChecksum(t, replaced(`"names": "encrypted"`, `"names": "plaintext"`)))
		defer r.write(config, good)
		r.refusesMount(5, r.mountFlags, r.dir, r.mnt, `^envfs: .*envfs.json was tampered with`, `^hint: somebody changed envfs.json`)
	})
	t.Run("volume key of another volume", func(t *testing.T) {
		r := *r
		r.t = t
		r.write(config, withChecksum(t, replaced(field(t, good, "volume_id"), strings.Repeat("0123456789abcdef", 2))))
		defer r.write(config, good)
		r.refusesMount(5, r.mountFlags, r.dir, r.mnt, `^envfs: .*envfs.json was tampered with`)
	})
	t.Run("symbolic link", func(t *testing.T) {
		r := *r
		r.t = t
		kept := r.below("kept.json")
		if err := os.Rename(config, kept); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(kept, config); err != nil {
			t.Fatal(err)
		}
		r.refusesMount(5, r.mountFlags, r.dir, r.mnt, `not a regular file`)
		if err := os.Rename(kept, config); err != nil {
			t.Fatal(err)
		}
	})
	r.refusesMount(3, []string{"--passphrase-file", r.below("wrong")}, r.dir, r.mnt, `^envfs: .*wrong passphrase`)
	r.mount()
	if got := r.read(r.path("letter")); got != "Dear reader" {
		t.Errorf("%q", got)
	}
}

// TestMountRefusesPlaces mounts where or what cannot be mounted.
func TestMountRefusesPlaces(t *testing.T) {
	r := newRig(t)
	for _, dir := range []string{"plain", "data/inside", "outer", "full", "second"} {
		r.mkdir(r.below(dir))
	}
	r.write(r.below("full/letter"), "Dear reader")
	r.envfs("init", "--argon2-time", "1", "--passphrase-file", r.pass, r.below("outer/vol")).ok()
	if err := os.Symlink("data/inside", r.below("disguise")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, dir, mnt string
		flags          []string
		patterns       []string
	}{
		{"no volume", "plain", "second", nil, []string{`^envfs: .*plain: not an envfs volume$`, `^hint: make it one: envfs init`}},
		{"no directory", "missing", "second", nil, []string{`^envfs: .*missing: no such file or directory$`}},
		{"mountpoint missing", "data", "missing", nil, []string{`^envfs: .*missing: mountpoint does not exist$`, `^hint: make it: mkdir .*missing$`}},
		{"mountpoint a file", "data", "full/letter", nil, []string{`^envfs: .*letter: mountpoint is not a directory$`}},
		{"mountpoint not empty", "data", "full", nil, []string{`^envfs: .*full: mountpoint is not empty$`, `^hint: mount over it with -o nonempty`}},
		{"inside the ciphertext", "data", "data/inside", nil, []string{`mountpoint is inside the ciphertext directory$`, `^hint: `}},
		{"inside the ciphertext, by a link", "data", "disguise", nil, []string{`mountpoint is inside the ciphertext directory$`}},
		{"the ciphertext itself", "data", "data", nil, []string{`mountpoint is the ciphertext directory itself$`}},
		{"the ciphertext inside", "outer/vol", "outer", []string{"-o", "nonempty"}, []string{`ciphertext directory is inside the mountpoint$`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := *r
			r.t = t
			r.refusesMount(1, append(test.flags, r.mountFlags...), r.below(test.dir), r.below(test.mnt), test.patterns...)
		})
	}
	r.mount()
	r.refusesMount(1, r.mountFlags, r.dir, r.below("second"), `^envfs: .*data: in use by another process \(pid [0-9]+\)$`, `^hint: unmount it there first`)
	r.refusesMount(1, append([]string{"-o", "ro"}, r.mountFlags...), r.dir, r.below("second"), `in use by another process`)
	r.refusesMount(1, r.mountFlags, r.below("outer/vol"), r.mnt, `an envfs is mounted here already`)
}

// TestInitRefuses makes volumes where something is already.
func TestInitRefuses(t *testing.T) {
	r := newRig(t)
	r.mkdir(r.below("full/dir"))
	r.write(r.below("full/dir/letter"), "Dear reader")
	for _, test := range []struct {
		name     string
		dir      string
		flags    []string
		code     int
		patterns []string
	}{
		{"over a volume", "data", nil, 1, []string{`^envfs: .*data: is an envfs volume already$`, `^hint: mount it: envfs mount .*data MOUNTPOINT`}},
		{"adopting a volume", "data", []string{"--adopt"}, 1, []string{`is an envfs volume already$`}},
		{"not empty", "full", nil, 1, []string{`^envfs: .*full: directory is not empty: it holds "dir"$`, `^hint: choose an empty directory; with --adopt`}},
		{"a file", "full/dir/letter", nil, 1, []string{`not a directory`}},
		{"no parent", "missing/deeper", nil, 1, []string{`no such file or directory$`}},
		{"unknown keyring", "new", []string{"--keyring", "paper"}, 2, []string{`must be one of local\|vault`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			unchanged(t, r.base, func() {
				res := r.envfs(append(append([]string{"init", "--passphrase-file", r.pass}, test.flags...), r.below(test.dir))...)
				res.t = t
				res.fails(test.code, test.patterns...)
			})
		})
	}
	r.mount()
	unchanged(t, r.dir, func() {
		r.envfs("init", "--passphrase-file", r.pass, r.dir).fails(1, `is an envfs volume already$`)
	})
	r.umount()
	r.envfs("init", "--adopt", "--argon2-time", "1", "--passphrase-file", r.pass, r.below("full")).ok()
	if got := r.read(r.below("full/dir/letter")); got != "Dear reader" {
		t.Errorf("adopting changed a file: %q", got)
	}
}

// TestNoFuse hides /dev/fuse.
func TestNoFuse(t *testing.T) {
	needRoot(t)
	need(t, "unshare", "mount")
	r := newRig(t)
	unchanged(t, r.base, func() {
		run(t, r.env, r.base, "unshare", "-m", "sh", "-c",
			`mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec envfs mount --passphrase-file "$1" "$2" "$3"`, "sh", r.pass, r.dir, r.mnt).
			fails(1, `^envfs: FUSE is not available: open /dev/fuse: no such file or directory$`, `^hint: load the kernel module: modprobe fuse`)
	})
}
