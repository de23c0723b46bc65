package volume

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// hook does something before the nth call that changes or syncs.
type hook struct {
	count  atomic.Int64
	at     int64        // counted from 1
	ops    []backing.Op // only these; nil: all that change or sync
	action func() error
}

var changing = []backing.Op{
	backing.OpOpen, backing.OpWrite, backing.OpSync, backing.OpMkdir,
	backing.OpLink, backing.OpUnlink, backing.OpRename, backing.OpSetattr,
}

func (h *hook) Before(c *backing.Call) error {
	ops := h.ops
	if ops == nil {
		ops = changing
	}
	if !slices.Contains(ops, c.Op) {
		return nil
	}
	if n := h.count.Add(1); h.at != 0 && n != h.at {
		return nil
	}
	return h.action()
}

// failing gives a store whose calls of that kind all fail, unless err is nil.
func failing(err error, op backing.Op) *backing.Store {
	return &backing.Store{Hook: &hook{ops: []backing.Op{op}, action: func() error { return err }}}
}

// maxCalls is more than any of the operations here makes.
const maxCalls = 50

// TestInitFaults fails each call of an init in turn: an error, and no volume
// or a whole one, and the next init finds nothing in its way.
func TestInitFaults(t *testing.T) {
	kr := newTestKeyring()
	for at := int64(1); ; at++ {
		if at > maxCalls {
			t.Fatal("init never succeeds")
		}
		dir := t.TempDir()
		h := &hook{at: at, action: func() error { return unix.ENOSPC }}
		_, err := Init(t.Context(), dir, initOptions(kr, InitOptions{Store: &backing.Store{Hook: h}}))
		if h.count.Load() < at {
			if err != nil || at < 8 {
				t.Errorf("%d calls, none of which failed: %v", at-1, err)
			}
			return
		}
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Errorf("call %d fails with ENOSPC, init with %v", at, err)
		}
		if err == nil {
			t.Errorf("call %d fails, but init does not", at)
		}
		checkInitAgain(t, dir, kr)
	}
}

// checkInitAgain wants no volume or a whole one in dir, and wants it to be
// whole, and alone, after one more init.
func checkInitAgain(t *testing.T, dir string, kr *testKeyring) {
	t.Helper()
	before, err := ReadConfig(dir)
	if err != nil && !errors.Is(err, ErrNotVolume) {
		t.Errorf("neither a volume nor none: %v", err)
	}
	_, err = Init(t.Context(), dir, initOptions(kr, InitOptions{}))
	if before != nil && !errors.Is(err, ErrExists) || before == nil && err != nil {
		t.Errorf("init once more: %v (there was a volume: %v)", err, before != nil)
	}
	v := mustOpen(t, dir, kr, OpenOptions{Unlocked: true})
	if before != nil && !sameConfig(before, v.cfg) {
		t.Error("the second init changed the volume of the first")
	}
	if err := v.UpdateKeyring(localRef("after")); err != nil {
		t.Errorf("writing the config once more: %v", err)
	}
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("left behind: %q", got)
	}
}

// TestInitKilled kills a process before each call of an init in turn.
func TestInitKilled(t *testing.T) {
	killed := 0
	for at := 1; at <= maxCalls; at++ {
		dir := filepath.Join(t.TempDir(), "cipher")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		out, err := child(t, "init", dir, strconv.Itoa(at)).CombinedOutput()
		if err == nil {
			break
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("killed at call %d: %v\n%s", at, err, out)
		}
		killed++
		checkInitAgain(t, dir, newTestKeyring())
	}
	if killed < 8 || killed == maxCalls {
		t.Errorf("killed %d times", killed)
	}
}

// TestUpdateKilled kills a process before each call of an update of the
// keyring: the old section or the new one, and the volume opens.
func TestUpdateKilled(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{Ref: localRef("0")})
	old, killed := "0", 0
	for at := 1; at <= maxCalls; at++ {
		next := strconv.Itoa(at)
		out, err := child(t, "update", dir, next).CombinedOutput()
		got := note(t, mustOpen(t, dir, kr, OpenOptions{Unlocked: true}).cfg)
		if err == nil {
			if got != next {
				t.Errorf("updated to %s, but the config says %s", next, got)
			}
			break
		}
		if strings.Contains(string(out), "update:") {
			t.Fatalf("at call %d: %s", at, out)
		}
		killed++
		if got != old && got != next {
			t.Errorf("killed at call %d: neither %s nor %s but %s", at, old, next, got)
		}
		old = got
	}
	if killed < 8 || killed == maxCalls {
		t.Errorf("killed %d times", killed)
	}
	if got := listDir(t, dir); !slices.Equal(got, []string{ConfigName}) {
		t.Errorf("left behind: %q", got)
	}
}

// note gives what localRef put into c.
func note(t *testing.T, c *Config) string {
	t.Helper()
	var section struct{ Note string }
	if err := json.Unmarshal(c.Keyring.Local, &section); err != nil {
		t.Fatal(err)
	}
	return section.Note
}
