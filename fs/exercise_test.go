package fs

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// soaking returns n, or much more when the tests are to take their long form. ENVFS_SOAK is how much more: 1 is what a night has time for.
func soaking(n int) int {
	if times, err := strconv.Atoi(os.Getenv("ENVFS_SOAK")); err == nil && times > 0 {
		return n * 20 * times
	}
	return n
}

// TestExercise drives a mount and a plain directory alike through random operations: what an application sees of each, and
// now and then of everything, must be the same. The operations are the same ones in every run, so that one machine finds what
// another did; the long form draws others each time. A failure names the seed, which -rapid.seed repeats.
func TestExercise(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the operations change owners and make device nodes")
	}
	settings := map[string]string{"rapid.checks": fmt.Sprint(soaking(12)), "rapid.nofailfile": "true"}
	if soaking(1) == 1 {
		settings["rapid.seed"] = "1"
	}
	for flagName, value := range settings {
		if f := flag.Lookup(flagName); f.Value.String() == f.DefValue { // not asked for on the command line
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Value.Set(f.DefValue) })
		}
	}
	for _, mode := range modesFor("exercise") {
		t.Run(mode.name, func(t *testing.T) {
			e := newExercise(t, mode.opts)
			rapid.Check(t, e.check)
			t.Logf("%d operations in %d runs; of these succeeded %v", e.done, e.runs, e.succeeded)
		})
	}
}

// exercise is a mount and a plain directory, with a process for each that carries out operations there.
type exercise struct {
	r            *rig
	dir          string // the plain directory
	plain, mount *process
	runs, done   int
	succeeded    map[string]int // operations by kind
}

func newExercise(t *testing.T, o Options) *exercise {
	return &exercise{r: newRig(t, o), dir: openTempDir(t), plain: startProcess(t, "perform"), mount: startProcess(t, "perform"),
		succeeded: map[string]int{}}
}

func (e *exercise) check(t *rapid.T) {
	e.runs++
	name := fmt.Sprint("run-", e.runs)
	e.enter(t, name)
	var history []operation
	ops := rapid.SliceOfN(operationsToDraw(), 100, 300).Draw(t, "operations")
	for _, o := range slices.Concat(firstOperations(), ops, lastOperations()) {
		if o.Kind == "" {
			continue
		}
		e.done++
		history = append(history, o)
		if o.Kind == "remount" {
			e.leave(t)
			e.r.remount()
			e.enter(t, name)
			continue
		}
		if o.Kind == "forget" {
			if err := e.r.server.dev.InvalidateEntry(rootID, name); err != nil { // and with it everything below
				t.Fatal(err)
			}
			continue
		}
		want, got := e.plain.do(t, o), e.mount.do(t, o)
		if difference := firstDifference(want, got); difference != "" {
			e.enter(t, name)
			t.Fatalf("%s\nthe operations were\n%v", difference, history)
		}
		if len(want) > 0 && strings.HasSuffix(want[0], "= ok") {
			e.succeeded[o.Kind]++
		}
	}
	e.leave(t)
	for _, dir := range []string{e.dir, e.r.dir} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// firstOperations make some entries and open some files, so that most operations find something to work on.
func firstOperations() []operation {
	const create = unix.O_RDWR | unix.O_CREAT
	return []operation{
		{Kind: "mkdir", Name: "d", Mode: 0o755}, {Kind: "mkdir", Name: "e", Mode: 0o755},
		{Kind: "open", Name: "a", Slot: 0, Flags: create, Mode: 0o644}, {Kind: "pwrite", Slot: 0, Len: 10_000, Seed: 1},
		{Kind: "open", Name: "a", Slot: 1, Flags: unix.O_RDWR | unix.O_APPEND},
		{Kind: "open", Name: "b", Slot: 2, Flags: create, Mode: 0o600}, {Kind: "pwrite", Slot: 2, Off: 50_000, Len: 3, Seed: 2},
		{Kind: "open", Name: "d/" + longName('l', 230), Slot: 3, Flags: create, Mode: 0o644},
	}
}

// lastOperations compare everything, warm and cold.
func lastOperations() []operation {
	return []operation{{Kind: "look"}, {Kind: "remount"}, {Kind: "look"}}
}

// enter makes both processes close everything and go on in the directory of that name.
func (e *exercise) enter(t *rapid.T, name string) {
	e.plain.do(t, operation{Kind: "chdir", Name: filepath.Join(e.dir, name)})
	e.mount.do(t, operation{Kind: "chdir", Name: filepath.Join(e.r.dir, name)})
}

func (e *exercise) leave(t *rapid.T) {
	e.plain.do(t, operation{Kind: "chdir", Name: e.dir})
	e.mount.do(t, operation{Kind: "chdir", Name: e.dir}) // not in the mount, which may be unmounted
}

func firstDifference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		a, b := "(nothing more)", "(nothing more)"
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			return fmt.Sprintf("  plain: %s\n  mount: %s\nafter\n  %s", a, b, strings.Join(want[max(0, i-6):min(i, len(want))], "\n  "))
		}
	}
	return ""
}

// process is a process of a test that is told what to do.
type process struct {
	in  *json.Encoder
	out *json.Decoder
	end context.CancelFunc
}

func startProcess(t *testing.T, task string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := child(ctx, task, "")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends by itself
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		cancel()
	})
	return &process{in: json.NewEncoder(in), out: json.NewDecoder(out), end: cancel}
}

// do carries out one operation. A process that does not come back from it is ended.
func (p *process) do(t *rapid.T, o operation) (lines []string) {
	stuck := time.AfterFunc(childTime, p.end)
	defer stuck.Stop()
	if err := p.in.Encode(o); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	if err := p.out.Decode(&lines); err != nil {
		t.Fatalf("%v: %v", o, err)
	}
	return lines
}

// operationsToDraw generates operations. None depends on those before it, so that a series that fails can be made short.
func operationsToDraw() *rapid.Generator[operation] {
	return rapid.Custom(func(t *rapid.T) operation {
		kinds := append([]string{""}, kindsToDraw()...) // first what a failing series becomes shorter with: nothing
		o := operation{Kind: pick(t, kinds)}
		o.Slot = pick(t, []int{0, 1, 2, 3})
		o.Name = drawName(t)
		switch o.Kind {
		case "open":
			o.Flags, o.Mode = drawOpen(t), drawMode(t)
		case "tmpfile", "mkdir", "chmod", "fchmod":
			o.Mode = drawMode(t)
		case "read", "write", "pread", "pwrite", "mapread", "mapwrite", "ftruncate", "truncate", "copy", "fallocate", "lseek":
			drawRange(t, &o)
		case "mknod":
			kind := pick(t, []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR})
			o.Mode = kind | drawMode(t)
			if kind == unix.S_IFCHR {
				o.To = int64(unix.Mkdev(1, 3)) // /dev/null
			}
		case "rename", "link":
			o.Other = drawName(t)
			o.Flags = pick(t, []int{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE})
		case "symlink":
			o.Other = pick(t, []string{"a", "d", "../a", "missing", "/dev/null", longName('t', 1000)})
		case "chown", "fchown":
			// Not -1 for both: from root that cannot be told from the announcement of a change (see announcesChange).
			o.Off, o.Len = rapid.Int64Range(-1, 2).Draw(t, "owner"), rapid.Int64Range(0, 2).Draw(t, "group")
		case "utimens":
			o.Off, o.Len = rapid.Int64Range(0, 9).Draw(t, "atime"), rapid.Int64Range(0, 9).Draw(t, "mtime")
		case "setxattr", "getxattr", "fsetxattr", "unsetxattr":
			o.Attr = pick(t, []string{"user.a", "user.b", "trusted.c", "security.d", "system.e"})
			o.Len, o.Seed = rapid.Int64Range(0, 60).Draw(t, "length"), rapid.Uint64Range(0, 9).Draw(t, "value")
			o.Flags = pick(t, []int{0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE})
		case "acl":
			o.Attr = pick(t, []string{"system.posix_acl_access", "system.posix_acl_default"})
			o.Mode, o.Seed = rapid.Uint32Range(0, 1<<15-1).Draw(t, "rights"), rapid.Uint64Range(0, 2).Draw(t, "user")
		case "sync":
			o.Flags = rapid.IntRange(0, 1).Draw(t, "data only")
		}
		return o
	})
}

// kindsToDraw has each kind as often as it is to be drawn, in relation to the others.
func kindsToDraw() (kinds []string) {
	for _, row := range []struct {
		times int
		kinds string
	}{
		{8, "open pwrite"},
		{4, "write pread ftruncate fallocate rename look mapwrite"},
		{3, "read copy truncate holes mapread mkdir link sync"},
		{2, "close unlink tmpfile linkat lseek rmdir symlink mknod utimens setxattr chmod"},
		{1, "fstat stat list readlink fchmod chown fchown getxattr fsetxattr unsetxattr acl remount"},
		{3, "forget"},
	} {
		for _, kind := range strings.Fields(row.kinds) {
			for range row.times {
				kinds = append(kinds, kind)
			}
		}
	}
	return kinds
}

// pick draws one of values, each as often as any other; rapid itself prefers the first ones.
func pick[T any](t *rapid.T, values []T) T {
	i := 0
	for n := len(values) - 1; n > 0; n >>= 1 {
		i <<= 1
		if rapid.Bool().Draw(t, "bit") {
			i++
		}
	}
	return values[i%len(values)]
}

func drawName(t *rapid.T) string {
	long := longName('l', 230)
	return pick(t, []string{
		"a", "b", "c", "d", "e", long, "d/a", "d/b", "e/a", "d/e", "d/e/a", "d/" + long, long + "/a", "a/b",
	})
}

func drawMode(t *rapid.T) uint32 {
	return pick(t, []uint32{0o644, 0o600, 0o755, 0o777, 0o444, 0o6755, 0o1777, 0o2775, 0})
}

func drawOpen(t *rapid.T) int {
	flags := pick(t, []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR})
	for _, f := range []struct{ flag, of, in int }{
		{unix.O_CREAT, 2, 3}, {unix.O_EXCL, 1, 10}, {unix.O_TRUNC, 1, 6}, {unix.O_APPEND, 1, 6}, {unix.O_SYNC, 1, 20},
		{unix.O_NOFOLLOW, 1, 10}, {unix.O_DIRECTORY, 1, 20}, {unix.O_NOATIME, 1, 20}, {unix.O_PATH, 1, 30},
	} {
		if pick(t, chances(f.of, f.in)) {
			flags |= f.flag
		}
	}
	return flags
}

// chances is true so often out of so many.
func chances(of, in int) []bool {
	c := make([]bool, in)
	for i := range of {
		c[in-1-i] = true
	}
	return c
}

// drawRange draws a place in a file, often at the edge of a block, and how much is to be done there.
func drawRange(t *rapid.T, o *operation) {
	o.Off, o.Len = drawSize(t), max(1, drawSize(t))
	o.Seed = rapid.Uint64Range(0, 255).Draw(t, "seed")
	switch o.Kind {
	case "copy":
		o.Peer, o.To = rapid.IntRange(0, exerciseSlots-1).Draw(t, "peer"), drawSize(t)
	case "mapwrite":
		o.Flags = rapid.IntRange(0, 1).Draw(t, "msync")
	case "lseek":
		o.Flags = pick(t, []int{unix.SEEK_SET, unix.SEEK_CUR, unix.SEEK_END})
	case "fallocate":
		o.Flags = pick(t, []int{0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE})
	}
}

func drawSize(t *rapid.T) int64 {
	near := rapid.Int64Range(-1, 1).Draw(t, "near")
	if rapid.Bool().Draw(t, "anywhere") {
		return rapid.Int64Range(0, 20*block).Draw(t, "size")
	}
	return max(0, rapid.Int64Range(0, 20).Draw(t, "block")*block+near)
}
