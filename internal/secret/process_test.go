package secret

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What changes or limits a whole process runs in one of its own: this test binary,
// started again with the name of the scene.
const sceneVariable = "ENVFS_SECRET_SCENE"

var scenes = map[string]func() error{
	"locked":         sceneLocked,
	"small-limit":    sceneSmallLimit,
	"no-limit-left":  sceneNoLimitLeft,
	"protected":      sceneProtected,
	"memory-returns": sceneMemoryReturns,
	"finite-limit":   sceneFiniteLimit,
}

func TestMain(m *testing.M) {
	scene, ok := os.LookupEnv(sceneVariable)
	if !ok {
		os.Exit(m.Run())
	}
	if err := scenes[scene](); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

var errSkip = errors.New("skip")

func TestScenes(t *testing.T) {
	for scene := range scenes {
		t.Run(scene, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), sceneVariable+"="+scene)
			out, err := cmd.CombinedOutput()
			if bytes.Contains(out, []byte(errSkip.Error()+": ")) {
				t.Skipf("%s", out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// sceneLocked looks at a slab as the kernel shows it.
func sceneLocked() error {
	before, err := statusKiB("VmLck")
	if err != nil {
		return err
	}
	a := NewArena(nil)
	k := a.Random(32)
	if s := a.Stats(); s.UnlockedBytes != 0 {
		return fmt.Errorf("%w: the system locks no memory here", errSkip)
	}
	flags, err := mappingFlags(uintptr(unsafe.Pointer(&k.Bytes()[0])))
	if err != nil {
		return err
	}
	for _, want := range []string{"lo", "dd"} { // locked, not dumped
		if !strings.Contains(" "+flags+" ", " "+want+" ") {
			return fmt.Errorf("the slab has flags %q, without %q", flags, want)
		}
	}
	for range slabSize / MaxSize * 3 {
		a.New(1)
	}
	after, err := statusKiB("VmLck")
	if err != nil {
		return err
	}
	if grown, want := int64(after-before)<<10, a.Stats().LockedBytes; grown != want || want < 3*slabSize {
		return fmt.Errorf("VmLck grew by %d bytes, the arena says %d", grown, want)
	}
	return nil
}

// sceneSmallLimit has room for two slabs of locked memory.
func sceneSmallLimit() error {
	return underLimit(2*slabSize, Stats{LockedBytes: 2 * slabSize, UnlockedBytes: 2 * slabSize})
}

// sceneNoLimitLeft may lock nothing.
func sceneNoLimitLeft() error {
	return underLimit(0, Stats{UnlockedBytes: 4 * slabSize})
}

// underLimit fills four slabs as a process that may lock limit bytes.
func underLimit(limit uint64, want Stats) error {
	if err := setLockLimit(limit); err != nil {
		return err
	}
	if unix.Getpagesize() > slabSize {
		return fmt.Errorf("%w: pages are larger than a slab", errSkip)
	}
	var out bytes.Buffer
	a := NewArena(slog.New(slog.NewTextHandler(&out, nil)))
	want.Cells = 4 * slabSize / MaxSize
	for range want.Cells {
		k := a.Random(32)
		if bytes.Equal(k.Bytes(), make([]byte, 32)) {
			return errors.New("a key is not usable")
		}
	}
	if got := a.Stats(); got != want {
		return fmt.Errorf("stats are %+v, want %+v", got, want)
	}
	if n := strings.Count(out.String(), "level=WARN"); n != 1 {
		return fmt.Errorf("warned %d times, want once:\n%s", n, out.String())
	}
	return nil
}

// setLockLimit limits this process, which gives up the privilege to ignore it. The
// privilege is the thread's, so the caller stays on its thread.
func setLockLimit(limit uint64) error {
	runtime.LockOSThread()
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("%w: RLIMIT_MEMLOCK cannot be set: %v", errSkip, err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

func sceneProtected() error {
	ProtectProcess(nil)
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		return fmt.Errorf("dumpable is %d, %v", dumpable, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core != (unix.Rlimit{}) {
		return fmt.Errorf("RLIMIT_CORE is %+v, %v", core, err)
	}
	// A file system serves files through the links of its own descriptors.
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d", dir.Fd())); err != nil {
		return err
	}
	return dir.Close()
}

// sceneFiniteLimit must not lock all of the process: the runtime's own mappings
// would fail under the limit, and end the process.
func sceneFiniteLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if err := setLockLimit(min(limit.Max, 4<<30)); err != nil { // more than is mapped now, if possible
		return err
	}
	ProtectProcess(nil)
	if mayLockAll() {
		return errors.New("a finite limit counts as none")
	}
	if locked, err := statusKiB("VmLck"); err != nil || locked != 0 {
		return fmt.Errorf("%d KiB are locked under a finite limit, %v", locked, err)
	}
	return nil
}

// sceneMemoryReturns shows that locking all of the process keeps the Go runtime
// able to give memory back, again and again, and does not shred its mappings.
func sceneMemoryReturns() error {
	if raceEnabled {
		return fmt.Errorf("%w: the race detector keeps memory of its own for the heap", errSkip)
	}
	if err := unix.Mlockall(lockAll); err != nil {
		return fmt.Errorf("%w: the process may not lock all of its memory: %v", errSkip, err)
	}
	const size = 128 << 20
	var mappings int
	for round := range 5 {
		idle, err := statusKiB("VmRSS")
		if err != nil {
			return err
		}
		used, err := rssWith(size)
		if err != nil {
			return err
		}
		debug.FreeOSMemory()
		after, err := statusKiB("VmRSS")
		if err != nil {
			return err
		}
		if used-idle < size>>10*9/10 || after-idle > size>>10/10 {
			return fmt.Errorf("round %d: %d KiB resident before, %d in use, %d after", round, idle, used, after)
		}
		now, err := countMappings()
		if err != nil {
			return err
		}
		if round == 0 {
			mappings = now
		} else if now > mappings+50 {
			return fmt.Errorf("round %d: %d mappings, %d after the first", round, now, mappings)
		}
	}
	return nil
}

// rssWith returns the resident size in KiB while so many bytes of heap are in use.
func rssWith(size int) (int, error) {
	var held [][]byte
	for range size / 65536 {
		b := make([]byte, 65536)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	rss, err := statusKiB("VmRSS")
	runtime.KeepAlive(held)
	return rss, err
}

// statusKiB reads one size of /proc/self/status.
func statusKiB(field string) (int, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", field)
}

// mappingFlags returns the VmFlags of the mapping that holds an address.
func mappingFlags(address uintptr) (string, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return "", err
	}
	defer f.Close()
	within := false
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		var from, to uintptr
		if n, _ := fmt.Sscanf(scanner.Text(), "%x-%x ", &from, &to); n == 2 {
			within = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(scanner.Text(), "VmFlags: "); ok && within {
			return flags, nil
		}
	}
	return "", fmt.Errorf("no VmFlags for %#x: %v", address, scanner.Err())
}

func countMappings() (int, error) {
	b, err := os.ReadFile("/proc/self/maps")
	return bytes.Count(b, []byte("\n")), err
}
