package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// inserts is a script for sqlite3: n transactions of 50 rows each into the table t.
func inserts(process string, n int) string {
	var sql strings.Builder
	for i := range n {
		sql.WriteString("BEGIN IMMEDIATE;\n")
		for j := range 50 {
			fmt.Fprintf(&sql, "INSERT INTO t(process, n, text) VALUES('%s', %d, hex(randomblob(%d)));\n", process, i*50+j, 20+(i*j)%200)
		}
		sql.WriteString("COMMIT;\n")
	}
	return sql.String()
}

// TestSQLite lets two processes write one database, in each journal mode, beside a third that reads.
func TestSQLite(t *testing.T) {
	need(t, "sqlite3")
	for _, mode := range []string{"delete", "truncate", "wal"} {
		t.Run(mode, func(t *testing.T) {
			r := mounted(t)
			const transactions = 60
			if out := r.sh(`sqlite3 x.db "PRAGMA journal_mode=` + mode + `; CREATE TABLE t(process, n, text, UNIQUE(process, n));"`); out != mode+"\n" {
				t.Fatalf("journal mode %q", out)
			}
			var writers sync.WaitGroup
			for _, process := range []string{"one", "two"} {
				r.write(r.below(process+".sql"), inserts(process, transactions))
				writers.Go(func() {
					if res := r.script(`sqlite3 -bail -cmd ".timeout 60000" x.db < "$BASE/` + process + `.sql"`); res.code != 0 {
						t.Errorf("writer %s: %s", process, res.stderr)
					}
				})
			}
			for range 5 {
				out := r.sh(`sqlite3 -cmd ".timeout 60000" x.db "SELECT count(*) % 50 FROM t; PRAGMA quick_check;"`)
				if out != "0\nok\n" {
					t.Errorf("a reader sees a part of a transaction, or damage: %q", out)
				}
			}
			writers.Wait()
			want := fmt.Sprintf("ok\none|%d\ntwo|%d\n", 50*transactions, 50*transactions)
			check := `sqlite3 -cmd ".timeout 60000" x.db "PRAGMA integrity_check; SELECT process, count(*) FROM t GROUP BY process ORDER BY process;"`
			if out := r.sh(check); out != want {
				t.Errorf("got %q, want %q", out, want)
			}
			r.sh(`sqlite3 x.db "DELETE FROM t WHERE n % 3 = 0; VACUUM; PRAGMA integrity_check;" | grep -qx ok; sqlite3 x.db .dump > "$BASE/dump"`)
			r.remount()
			r.sh(`sqlite3 x.db "PRAGMA integrity_check;" | grep -qx ok; sqlite3 x.db .dump | cmp - "$BASE/dump"`)
		})
	}
}

// TestSQLiteCrash kills the daemon in the middle of transactions: every one that was committed is there, none in part.
func TestSQLiteCrash(t *testing.T) {
	need(t, "sqlite3")
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			r := mounted(t)
			r.sh(`sqlite3 x.db "PRAGMA journal_mode=` + mode + `; CREATE TABLE t(process, n, text);"`)
			script := strings.ReplaceAll(inserts("one", 2000), "COMMIT;\n", "COMMIT; SELECT 'committed';\n")
			r.write(r.below("one.sql"), "PRAGMA synchronous=FULL;\n"+script)
			ended := make(chan result)
			go func() {
				ended <- r.script(`sqlite3 -bail x.db < "$BASE/one.sql" > "$BASE/committed"`)
			}()
			r.until("some transactions", func() bool {
				return r.script(`test "$(wc -l < "$BASE/committed")" -ge 20`).code == 0
			})
			r.crash()
			if res := <-ended; res.code == 0 {
				t.Error("the writer has not noticed the crash")
			}
			committed := strings.Count(r.read(r.below("committed")), "committed")

			r.mount()
			out := r.sh(`sqlite3 x.db "PRAGMA integrity_check; SELECT count(*) FROM t;"`)
			var rows int
			if _, err := fmt.Sscanf(out, "ok\n%d\n", &rows); err != nil {
				t.Fatalf("after the crash: %q", out)
			}
			if rows%50 != 0 || rows < committed*50 || rows > (committed+1)*50 {
				t.Errorf("%d rows after %d commits of 50", rows, committed)
			}
		})
	}
}
