package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestTools runs small programs, each of which uses a file system in its own way.
func TestTools(t *testing.T) {
	r := mounted(t)
	r.write(r.path("numbers"), "")
	for _, test := range []struct{ name, needs, script string }{
		{"dd blocks", "dd", `head -c 1000000 /dev/urandom > "$BASE/a"
			dd if="$BASE/a" of=a bs=1000 status=none; cmp a "$BASE/a"
			dd if=a of=b bs=7777 status=none; cmp a b
			dd if=/dev/zero of=b bs=4097 count=3 seek=5 conv=notrunc status=none
			dd if=/dev/zero of="$BASE/a" bs=4097 count=3 seek=5 conv=notrunc status=none; cmp b "$BASE/a"`},
		{"dd direct", "dd", `head -c 1048576 /dev/urandom > "$BASE/direct"
			dd if="$BASE/direct" of=direct bs=64k oflag=direct status=none; cmp direct "$BASE/direct"
			dd if=direct of="$BASE/direct2" bs=64k iflag=direct status=none; cmp "$BASE/direct" "$BASE/direct2"`},
		{"dd sync append", "dd", `printf head > s; seq 1000 | dd of=s bs=100 oflag=append,dsync conv=notrunc status=none
			{ printf head; seq 1000; } | cmp - s`},
		{"sed", "sed", `seq 10000 > s1; chmod 640 s1; sed -i 's/9/nine/g' s1; seq 10000 | sed 's/9/nine/g' | cmp - s1; test "$(stat -c %a s1)" = 640`},
		{"patch", "patch", `seq 5000 > p1; seq 5000 | sed 's/^77$/seventy-seven/' > p2; diff -u p1 p2 > p.diff || true
			patch -s p1 p.diff; cmp p1 p2; patch -s -R -b p1 p.diff; seq 5000 | cmp - p1; cmp p2 p1.orig`},
		{"gzip", "gzip", `seq 100000 > z; touch -d '2001-02-03 04:05:06' z; gzip z; gzip -t z.gz; gunzip -k z.gz; seq 100000 | cmp - z
			test "$(stat -c %Y z)" = "$(date -d '2001-02-03 04:05:06' +%s)"`},
		{"sort", "sort", `seq 50000 | shuf > o; sort -n -o o o; seq 50000 | cmp - o; sort -R -T . -S 1M o | sort -n | cmp - o`},
		{"find", "find", `mkdir -p f/a/b f/c; touch f/a/1 f/a/b/2 f/c/3; ln -s a f/l; head -c 5000 /dev/zero > f/c/big
			test "$(find f | wc -l)" = 9; test "$(find f -type l)" = f/l; test "$(find f -size +4k -type f)" = f/c/big
			test "$(find f -newer f/a/1 -name big)" = f/c/big; find f -type f -delete; find f -depth -delete; test ! -e f`},
		{"ls and du", "du", `mkdir many; (cd many; seq -f 'file %g' 2000 | while read -r n; do : > "$n"; done); test "$(ls many | wc -l)" = 2000
			test "$(ls -f many | sort -u | wc -l)" = 2002; head -c 1M /dev/urandom > many/big
			test "$(du -b --apparent-size many/big | cut -f1)" = 1048576; k=$(du -k many/big | cut -f1); test "$k" -ge 1024 -a "$k" -le 1100
			rm -r many; test ! -e many`},
		{"truncate and fallocate", "fallocate", `truncate -s 5G huge; test "$(stat -c %s huge)" = 5368709120; printf end | dd of=huge bs=1 seek=5368709117 conv=notrunc status=none
			test "$(tail -c 3 huge)" = end; test "$(du -k huge | cut -f1)" -lt 1000; truncate -s 3 huge; test "$(od -An -tx1 huge)" = ' 00 00 00'
			head -c 100000 /dev/urandom > h; cp h "$BASE/h"; fallocate -p -o 8192 -l 20000 h; fallocate -p -o 8192 -l 20000 "$BASE/h"; cmp h "$BASE/h"`},
		{"mv", "mv", `mkdir m1 m2; echo one > m1/x; echo two > m2/x; mv -n m1/x m2/x; test "$(cat m2/x)" = two; mv -f m1/x m2/x; test "$(cat m2/x)" = one
			mv m2 m3; test "$(cat m3/x)" = one; mv m3/x "$BASE/x"; mv "$BASE/x" m3/y; test "$(cat m3/y)" = one`},
		{"flock", "flock", `: > lock; exec 9< lock; flock -n 9; ! flock -n lock true; flock -u 9; flock -n lock true`},
		{"unlinked but open", "cat", `echo kept > u; exec 8<> u; rm u; echo more >> /proc/self/fd/8; test "$(cat /proc/self/fd/8)" = "$(printf 'kept\nmore')"; test ! -e u`},
		{"install", "install", `install -D -m 751 /bin/true i/bin/true; cmp i/bin/true /bin/true; test "$(stat -c %a i/bin/true)" = 751; i/bin/true`},
	} {
		t.Run(test.name, func(t *testing.T) {
			need(t, test.needs)
			if res := r.script(test.script); res.code != 0 {
				t.Errorf("exit code %d\n%s%s", res.code, res.stdout, res.stderr)
			}
		})
	}
	want := snapshot(t, r.mnt)
	r.remount()
	sameTree(t, want, snapshot(t, r.mnt))
}

// TestMmap writes a file through shared mappings from several processes.
func TestMmap(t *testing.T) {
	need(t, "python3")
	r := mounted(t)
	r.sh(`python3 -c '
import mmap, os
size = 1 << 20
with open("mapped", "w+b") as f:
    f.truncate(size)
    with mmap.mmap(f.fileno(), size) as m:
        children = []
        for c in range(4):
            pid = os.fork()
            if pid == 0:
                for i in range(c, size // 4096, 4):
                    m[i*4096:i*4096+6] = b"%06d" % i
                m.flush()
                os._exit(0)
            children.append(pid)
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        with open("mapped", "rb") as g:               # read(2) sees what mmap wrote
            for i in range(size // 4096):
                g.seek(i * 4096)
                assert g.read(6) == b"%06d" % i, i
        os.pwrite(f.fileno(), b"written", 8000)       # and the other way round
        assert m[8000:8007] == b"written"
    with mmap.mmap(f.fileno(), size, flags=mmap.MAP_PRIVATE) as p:
        p[0:7] = b"private"
    assert os.pread(f.fileno(), 6, 0) == b"000000"
'`)
	r.remount()
	got := r.read(r.path("mapped"))
	for i := range len(got) / 4096 {
		if page := got[i*4096:]; page[:6] != fmt.Sprintf("%06d", i) {
			t.Fatalf("page %d after a remount: %q", i, page[:6])
		}
	}
	if !strings.HasPrefix(got[8000:], "written") {
		t.Error("what write(2) wrote into a mapped file is gone")
	}
}
