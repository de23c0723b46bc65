package mounts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const sample = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:26 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
41 22 0:50 / /mnt/clear\040text rw,nosuid,nodev,relatime shared:20 master:3 - fuse.envfs /data/a\040b\134c\011d rw,user_id=1000,group_id=100
42 41 0:51 / /mnt/clear\040text/sub ro - tmpfs tmpfs rw
43 22 0:52 / /mnt/other ro,relatime - fuse.sshfs host:/x rw
44 22 0:53 / /mnt/other rw,relatime - fuse.envfs /data/two rw
45 22 0:54 / /mnt/nosource rw - tmpfs  rw
`

func parseSample(t *testing.T) Table {
	t.Helper()
	table, err := Parse(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestParse(t *testing.T) {
	table := parseSample(t)
	want := Mount{
		ID: 41, Parent: 22, Device: Device{0, 50}, Root: "/", Point: "/mnt/clear text",
		Options: "rw,nosuid,nodev,relatime", Type: "fuse.envfs", Source: "/data/a b\\c\td",
		UID: 1000,
	}
	if len(table) != 7 || table[2] != want {
		t.Errorf("%d mounts, third is\n%+v, want\n%+v", len(table), table[2], want)
	}
	if table[6].Source != "" || table[6].Type != "tmpfs" {
		t.Errorf("mount without a source is %+v", table[6])
	}
}

func TestParseRefuses(t *testing.T) {
	for _, line := range []string{
		"", "22 1 254:0 / / rw", "22 1 254:0 / / rw -", "22 1 254:0 / - ext4 /dev/vda rw",
		"x 1 254:0 / / rw - ext4 /dev/vda rw", "22 1 254 / / rw - ext4 /dev/vda rw", "22 1 254:z / / rw - ext4 d rw",
	} {
		if table, err := Parse(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%q gives %+v", line, table)
		}
	}
}

func TestLookups(t *testing.T) {
	table := parseSample(t)
	containing := []struct {
		path string
		id   int
	}{
		{"/", 22}, {"/etc/passwd", 22}, {"/mnt/clear text", 41}, {"/mnt/clear text/f", 41},
		{"/mnt/clear text/sub/f", 42}, {"/mnt/clear text2", 22}, {"/mnt/other/x", 44},
	}
	for _, test := range containing {
		if m, ok := table.Containing(test.path); !ok || m.ID != test.id {
			t.Errorf("%s lies on mount %d, want %d", test.path, m.ID, test.id)
		}
	}
	if m, ok := table.At("/mnt/clear text/f"); ok {
		t.Errorf("a plain file is the mountpoint of %+v", m)
	}
	if m, _ := table.At("/mnt/other"); m.ID != 44 || !m.IsEnvfs() || m.ReadOnly() {
		t.Errorf("topmost mount is %+v", m)
	}
	if below := table.Below(table[2]); len(below) != 1 || below[0].ID != 42 || !below[0].ReadOnly() {
		t.Errorf("below are %+v", below)
	}
	if of := table.OfSource("/data/two"); len(of) != 1 || of[0].ID != 44 {
		t.Errorf("mounts of /data/two are %+v", of)
	}
	if _, ok := (Table{}).Containing("/x"); ok {
		t.Error("an empty table contains a path")
	}
}

func TestReadHasRoot(t *testing.T) {
	table, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := table.At("/"); !ok {
		t.Error("nothing is mounted at /")
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(dir, "real")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, path := range []string{"real", "link", "./link/", "real/../link"} {
		if got, err := Resolve(path); err != nil || got != real {
			t.Errorf("Resolve(%q) = %q, %v, want %q", path, got, err, real)
		}
	}
	if got, err := Resolve("none"); !os.IsNotExist(err) {
		t.Errorf("a missing directory resolves to %q, %v", got, err)
	}
}

func TestIsSameAs(t *testing.T) {
	gone := parseSample(t)[2]
	const bound = `50 22 0:50 /sub /elsewhere rw,relatime - fuse.envfs /data/a\040b\134c\011d rw,user_id=1000,group_id=100`
	for line, want := range map[string]bool{
		bound: true,
		strings.Replace(bound, "fuse.envfs", "tmpfs", 1):          false, // the next ones to get the number
		strings.Replace(bound, "/data/", "/srv/", 1):              false,
		strings.Replace(bound, " 0:50 ", " 0:55 ", 1):             false,
		strings.Replace(bound, "fuse.envfs /data", "fuse.x /", 1): false,
	} {
		table, err := Parse(strings.NewReader(line + "\n"))
		if err != nil || table[0].IsSameAs(gone) != want {
			t.Errorf("%v, %v, is the same: %t, want %t", table, err, !want, want)
		}
	}
}
