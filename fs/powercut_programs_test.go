package fs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/envfs/envfs/internal/backing/powercut"
)

// program runs a program in a directory and returns what it prints. The directory is entered by a shell: this process serves the
// mount, and must not wait for it while it starts another.
func program(ctx context.Context, dir, stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `cd "$0" && exec "$@"`, dir}, args...)...)
	cmd.Stdin, cmd.WaitDelay = strings.NewReader(stdin), time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s%s", args[0], err, out, &stderr)
	}
	return string(out), err
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("ENVFS_TEST_STRICT") == "1" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
}

// TestPowerCutsUnderSQLite commits transactions: after a power cut the database is whole, each committed transaction is there,
// and of the one under way all or nothing.
func TestPowerCutsUnderSQLite(t *testing.T) {
	needProgram(t, "sqlite3")
	for _, mode := range []struct{ journal, synchronous string }{
		{"wal", "full"},
		{"delete", "extra"}, // full would not sync the directory after the commit
	} {
		t.Run(mode.journal, func(t *testing.T) {
			r := newPowerRig(t)
			db := &database{powerRig: r, settings: "PRAGMA synchronous=" + mode.synchronous + ";\n"}
			db.sql("PRAGMA journal_mode=" + mode.journal + ";\nCREATE TABLE t(n INTEGER PRIMARY KEY, text);")
			for i := range 12 {
				db.sql(transactions(i*10, 10))
			}
			r.cut(r.log(), 30, func(at int, _ *powercut.Image, mount string) []powercut.Violation {
				return db.check(t.Context(), at, mount)
			})
		})
	}
}

// database is one of SQLite in the mount.
type database struct {
	*powerRig
	settings  string
	committed []int // the instant at which each transaction was
}

// transactions is a script of n transactions of three rows each, which grow, and change rows of before.
func transactions(from, n int) string {
	var sql strings.Builder
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&sql, "BEGIN;\n")
		for j := range 3 {
			fmt.Fprintf(&sql, "INSERT INTO t VALUES(%d, hex(randomblob(%d)));\n", 3*i+j, 100+i*7%500)
		}
		fmt.Fprintf(&sql, "UPDATE t SET text = hex(randomblob(200)) WHERE n = %d;\nCOMMIT;\n", i)
	}
	return sql.String()
}

// sql runs statements in a process of its own. What it says is durable when it ends.
func (d *database) sql(text string) {
	d.t.Helper()
	if _, err := program(d.t.Context(), d.dir, d.settings+text, "sqlite3", "-bail", "x.db"); err != nil {
		d.t.Fatal(err)
	}
	d.committed = append(d.committed, d.rec.Now())
}

// check reads the database as the next program would.
func (d *database) check(ctx context.Context, at int, mount string) []powercut.Violation {
	runs := 0
	for runs < len(d.committed) && d.committed[runs] <= at {
		runs++
	}
	if runs == 0 {
		return nil // no table was promised yet
	}
	out, err := program(ctx, mount, "PRAGMA integrity_check;\nSELECT count(*) FROM t;\nSELECT max(n) + 1 FROM t;", "sqlite3", "-bail", "x.db")
	if err != nil {
		return []powercut.Violation{{Rule: 1, Text: err.Error()}}
	}
	var count, last int
	if n, _ := fmt.Sscanf(out, "ok\n%d\n%d\n", &count, &last); n != 2 && (runs > 1 || count != 0) {
		return []powercut.Violation{{Rule: 1, Text: "the database is damaged: " + out}}
	}
	if least := (runs - 1) * 30; count < least || count%3 != 0 || count != last {
		return []powercut.Violation{{Rule: 1, Text: fmt.Sprintf("%d rows up to %d, but %d were committed", count, last, least)}}
	}
	return nil
}

// TestPowerCutsUnderTar unpacks an archive and syncs what came out: from then on all of it is there, and until then nothing is
// in the way.
func TestPowerCutsUnderTar(t *testing.T) {
	needProgram(t, "tar")
	r := newPowerRig(t)
	source := t.TempDir()
	want := map[string][]byte{}
	for i := range 30 {
		name := fmt.Sprintf("d%d/e/%s%d", i%4, strings.Repeat("x", i*9%250), i)
		want[name] = bytes.Repeat([]byte(name), i*17%100)
		path := filepath.Join(source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want[name], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := fmt.Sprintf("tar -C %s -c . | tar -x && find . -print0 | xargs -0 sync", source)
	if _, err := program(t.Context(), r.dir, script, "sh", "-e"); err != nil {
		t.Fatal(err)
	}
	synced := r.rec.Now()
	r.seal()
	r.cut(r.log(), 60, func(at int, _ *powercut.Image, mount string) (found []powercut.Violation) {
		if at >= synced {
			for name, content := range want {
				got, err := os.ReadFile(filepath.Join(mount, name))
				if err != nil || !bytes.Equal(got, content) {
					found = append(found, powercut.Violation{Rule: 1, Text: fmt.Sprintf("%.20s…: %d bytes, %v", name, len(got), err)})
				}
			}
		}
		return append(found, powercut.ListAndRemove(mount)...)
	})
}
