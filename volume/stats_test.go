package volume

import (
	"testing"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/keyring"
)

func TestStats(t *testing.T) {
	r := newFileRig(t)
	f := r.create("a")
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if s := r.vol.Stats(); s.Unsealed != 0 || s.Cache.Keys != 1 || s.Pool == nil || s.Pool.Target < 256 {
		t.Errorf("with an open file: %+v, pool %+v", s, s.Pool)
	}
	f.Release()
	if s := r.vol.Stats(); s.Unsealed != 1 {
		t.Errorf("with a file that waits to be sealed: %+v", s)
	}
	if err := r.vol.SealAll(); err != nil {
		t.Fatal(err)
	}
	if s := r.vol.Stats(); s.Unsealed != 0 {
		t.Errorf("with a sealed file: %+v", s)
	}
	r.load("a", false).Release()
	if s := r.vol.Stats(); s.Cache.Hits != 1 {
		t.Errorf("after a look into the cache: %+v", s)
	}
}

func TestStatsOfReaders(t *testing.T) {
	r := newFileRig(t)
	r.reopenWith(OpenOptions{ReadOnly: true, Arena: secret.NewArena(nil)})
	if s := r.vol.Stats(); s.Pool != nil || s.Cache != (keyring.CacheStats{}) {
		t.Errorf("%+v", s)
	}
}
