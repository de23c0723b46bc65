package mounts

import (
	"fmt"
	"strings"
	"testing"
)

// escape is how the kernel writes a path into its table.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
}

func FuzzParse(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", "/mnt/a b")
	f.Add("40 1 0:50 / /mnt/clear rw,nosuid shared:1 - fuse.envfs /srv/data rw,user_id=1000,group_id=1000\n", `/back\slash`)
	f.Add("1 2 3:4 / \\040 rw - x \\1", "/new\nline")
	f.Add("no table", "/no-break\u00a0space, line\rbreak")
	f.Fuzz(func(t *testing.T, text, path string) {
		if table, err := Parse(strings.NewReader(text)); err == nil && len(table) > strings.Count(text, "\n")+1 {
			t.Errorf("%d mounts of %q", len(table), text)
		}
		if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, 0) || len(path) > 1000 {
			return // no path of the kernel's
		}
		line := fmt.Sprintf("40 1 0:50 / %s rw - fuse.envfs %s rw,user_id=7", escape(path), escape(path))
		table, err := Parse(strings.NewReader(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		m := table[0]
		if m.Point != path || m.Source != path || m.UID != 7 || !m.IsEnvfs() {
			t.Errorf("%q is read as %+v", line, m)
		}
	})
}
