package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/envfs/envfs/integration/farvault"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

const (
	// outageTime is how long the key service is away under load.
	outageTime = 30 * time.Second
	// waitTime is how long a program waits for a key at most.
	waitTime = time.Second
)

// TestOutageUnderLoad takes Vault away for half a minute, in each way in which it can be away, while fio writes and verifies an
// open file and files are made. Neither notices, and nothing is lost. What cannot have its key is refused while Vault is away, and
// works when it is back: how soon, is shown here, and tested in package keyring, by a clock that a busy machine does not hold up.
func TestOutageUnderLoad(t *testing.T) {
	need(t, "fio")
	type place struct {
		server  *vaulttest.Server
		far     *farvault.Vault
		network *network // of "silent" only, in the place of far
	}
	for _, test := range []struct {
		name       string
		begin, end func(p place)
	}{
		{"silent", func(p place) { p.network.fallSilent() }, func(p place) { p.network.speakAgain() }},
		{"killed", func(p place) { p.server.Kill() }, func(p place) { p.server.Restart() }},
		{"sealed", func(p place) { p.server.Seal() }, func(p place) { p.server.Unseal() }},
		{"cut", func(p place) { p.far.Line.Cut() }, func(p place) { p.far.Line.Restore() }},
		{"frozen", func(p place) { p.server.Pause() }, func(p place) { p.server.Resume() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, s := newVaultRig(t, nil)
			p := place{server: s}
			if test.name == "silent" {
				p.network = r.overNetwork(s)
			} else {
				p.far = r.farAway(s.Address, s.Token(0, "readwrite"), 0)
			}
			r.faults = true
			// Keys are asked for again all the time, so that the outage concerns those of open files, too.
			flags := []string{"--transit-key", "docs", "--key-ttl", "3s", "--vault-wait", waitTime.String(), "--pool-size", "1024"}
			r.mount(flags...)
			r.write(r.path("cold"), "content of cold")
			r.remount(flags...)

			load := r.startLoad()
			r.until("work as usual", func() bool { return load.made.Load() >= 20 })
			test.begin(p)
			away := time.Now()
			for time.Since(away) < outageTime {
				err := r.returns("reading a file whose key is not there", func() error {
					_, err := os.ReadFile(r.path("cold"))
					return err
				})
				if !errors.Is(err, syscall.ENOKEY) {
					t.Errorf("%v into the outage, a file whose key is not there: %v, want ENOKEY", time.Since(away), err)
				}
				time.Sleep(3 * time.Second)
			}
			test.end(p)
			back := time.Now()
			r.until("reading a file whose key was not there", func() bool {
				got, err := os.ReadFile(r.path("cold"))
				return err == nil && string(got) == "content of cold"
			})
			t.Logf("worked again after %v", time.Since(back))
			made := load.finish()
			r.remount(flags...)
			for i := range made {
				if got := r.read(r.path("made", fmt.Sprint(i))); got != fmt.Sprintf("file %d", i) {
					t.Fatalf("made/%d: %q", i, got)
				}
			}
			r.sh(fioCommand + " --verify_only")
		})
	}
}

// fioCommand writes a file in random order, about as long as an outage with what is around it, and reads back what it has
// written, meanwhile and in the end.
const fioCommand = `fio --name=load --filename="$CLEAR/fio" --size=14M --rw=randwrite --bs=4k --ioengine=psync --fallocate=none \
	--fsync=64 --rate_iops=100 --verify=crc32c --verify_backlog=100 --verify_fatal=1 --randseed=7 --minimal`

// load is what goes on while the key service is away.
type load struct {
	r       *rig
	stop    context.CancelFunc
	working sync.WaitGroup
	fio     error
	output  []byte
	made    atomic.Int64 // files, each with its number in it
	failure error
}

func (r *rig) startLoad() *load {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{r: r, stop: cancel}
	r.t.Cleanup(func() { l.stop(); l.working.Wait() })
	r.mkdir(r.path("made"))
	l.working.Go(func() {
		cmd := exec.CommandContext(r.t.Context(), "bash", "-c", fioCommand)
		cmd.Dir = r.base
		cmd.Env = append(os.Environ(), "CLEAR="+r.mnt)
		l.output, l.fio = cmd.CombinedOutput()
	})
	l.working.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil && l.failure == nil; <-tick.C {
			n := l.made.Load()
			if l.failure = writeSynced(r.path("made", fmt.Sprint(n)), fmt.Sprintf("file %d", n)); l.failure == nil {
				l.made.Add(1)
			}
		}
	})
	return l
}

// finish ends the load, which must not have noticed anything, and returns how many files were made.
func (l *load) finish() int64 {
	l.r.t.Helper()
	l.stop()
	l.working.Wait()
	made := l.made.Load()
	if l.fio != nil {
		l.r.t.Errorf("fio: %v\n%s", l.fio, l.output)
	}
	if l.failure != nil {
		l.r.t.Errorf("after %d files: %v", made, l.failure)
	}
	if made < 100 {
		l.r.t.Errorf("only %d files were made", made)
	}
	return made
}
