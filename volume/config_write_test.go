package volume

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/envfs/envfs/internal/backing"
)

// recorder notes the calls that decide whether a config survives a power cut.
type recorder struct {
	mu    sync.Mutex
	dir   int // the descriptor of the directory
	calls []string
}

func (r *recorder) Before(c *backing.Call) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case c.Op == backing.OpSync && c.FD == r.dir:
		r.calls = append(r.calls, "sync directory")
	case slices.Contains([]backing.Op{backing.OpWrite, backing.OpSync, backing.OpSetattr, backing.OpRename}, c.Op):
		r.calls = append(r.calls, string(c.Op))
	}
	return nil
}

// TestWriteOrder: content is durable before it gets its name, and the name
// before the caller hears of success.
func TestWriteOrder(t *testing.T) {
	kr := newTestKeyring()
	dir, cfg := initVolume(t, kr, InitOptions{})
	rec := new(recorder)
	r, err := openRoot(&backing.Store{Hook: rec}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	rec.dir = r.fd()
	lock, st, err := r.lockConfig()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := r.replaceConfig(cfg, st); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Unlink(r.fd(), ConfigName); err != nil {
		t.Fatal(err)
	}
	if err := r.createConfig(cfg); err != nil {
		t.Fatal(err)
	}
	const want = "setattr setattr write sync rename sync directory write sync rename sync directory"
	if got := strings.Join(rec.calls, " "); got != want {
		t.Errorf("calls: %s\nwant:  %s", got, want)
	}
}

func TestTempNames(t *testing.T) {
	if a, b := tempName(), tempName(); a == b || !isTempName(a) || !isTempName(b) {
		t.Errorf("temporary names %q and %q", a, b)
	}
	for _, name := range []string{
		ConfigName, tempPrefix, tempPrefix + "0123456789abcde", tempPrefix + "0123456789abcdef0",
		tempPrefix + "0123456789abcdeg", "x" + tempName(), "envfs.name.tmp-0123456789abcdef",
	} {
		if isTempName(name) {
			t.Errorf("%q is taken for a temporary name", name)
		}
	}
}
