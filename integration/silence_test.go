package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/integration/delayproxy"
	"github.com/envfs/envfs/keyring/vault/vaulttest"
)

// network is one of its own behind a cable, with one machine in it, that can fall silent: what is sent there gets no answer
// any more, neither a reset nor an error, as if packets were dropped on the way. The kernel's own means do that, so that TCP
// meets what it meets in the field.
type network struct {
	t          *testing.T
	name       string // of the namespace and of our end of the cable
	here, over string // addresses
}

// newNetwork makes one for the length of the test, or skips the test where that may not be done.
func newNetwork(t *testing.T) *network {
	t.Helper()
	need(t, "ip")
	needRoot(t)
	// Four addresses of 198.18.0.0/15, which is for tests of networks: others may run beside this one.
	number := rand.IntN(1<<15) * 4
	first := netip.AddrFrom4([4]byte{198, 18 + byte(number>>16), byte(number >> 8), byte(number)}).Next()
	n := &network{t: t, name: fmt.Sprint("envfs", number), here: first.String(), over: first.Next().String()}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("no network can be made, so what a silent one does to a mount is not tested: ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() { n.ip("netns delete " + n.name) }) // the cable goes with it
	peer := n.name + "p"
	n.ip("link add " + n.name + " type veth peer name " + peer + " netns " + n.name)
	n.ip("address add " + n.here + "/30 dev " + n.name)
	n.ip("link set " + n.name + " up")
	n.ip("-n " + n.name + " address add " + n.over + "/30 dev " + peer)
	n.ip("-n " + n.name + " link set " + peer + " up")
	return n
}

func (n *network) ip(args string) {
	n.t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func (n *network) fallSilent() { n.ip("-n " + n.name + " route add blackhole " + n.here + "/32") }
func (n *network) speakAgain() { n.ip("-n " + n.name + " route delete blackhole " + n.here + "/32") }

// listen puts a proxy for an address of this machine into the network.
func (n *network) listen(target string) (p *delayproxy.Proxy, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is in the other network, and ends with this goroutine
		var ns *os.File
		if ns, err = os.Open("/run/netns/" + n.name); err != nil {
			return
		}
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			p, err = delayproxy.Listen(n.over+":0", target, 0)
		}
		_ = ns.Close() // only read
	}()
	<-done
	return p, err
}

// overNetwork lets the rig reach its server through a network, which it returns, for a token of the policy readwrite.
func (r *rig) overNetwork(s *vaulttest.Server) *network {
	r.t.Helper()
	n := newNetwork(r.t)
	p, err := n.listen(strings.TrimPrefix(s.Address, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.env = []string{"HOME=" + r.below("home"), "VAULT_ADDR=http://" + p.Addr(), "VAULT_TOKEN=" + s.Token(0, "readwrite")}
	return n
}

// silence is how long nothing comes from the network: longer than the 10 s that bound one request with its retries.
const silence = 14 * time.Second

// TestSilentWaiter has a program wait for a key all the time that nothing comes from the network: it gets it after that.
func TestSilentWaiter(t *testing.T) {
	r, s := newVaultRig(t, nil)
	n := r.overNetwork(s)
	r.faults = true
	flags := []string{"--vault-wait", "2m"}
	r.mount(flags...)
	r.write(r.path("cold"), "content of cold")
	r.remount(flags...)
	n.fallSilent()
	answered := make(chan error, 1)
	go func() {
		got, err := os.ReadFile(r.path("cold"))
		if err == nil && string(got) != "content of cold" {
			err = fmt.Errorf("read %q", got)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered in the silence: %v", err)
	case <-time.After(silence):
	}
	n.speakAgain()
	back := time.Now()
	if err := r.returns("who waits", func() error { return <-answered }); err != nil {
		t.Error(err)
	}
	t.Logf("answered after %v", time.Since(back))
}

// TestSilentPool uses all keys up that were wrapped ahead, while nothing comes from the network: each further file fails
// meanwhile, and files are made again after it.
func TestSilentPool(t *testing.T) {
	r, s := newVaultRig(t, nil)
	n := r.overNetwork(s)
	r.faults = true
	r.mount("--vault-wait", waitTime.String(), "--pool-size", "64")
	r.write(r.path("first"), "first")
	n.fallSilent()
	away := time.Now()
	made := 0
	for time.Since(away) < silence {
		err := r.returns("making a file", func() error { return writeSynced(r.path(fmt.Sprintf("file-%d", made)), fmt.Sprint(made)) })
		if err != nil && !errors.Is(err, syscall.ENOKEY) {
			t.Errorf("%v into the silence: %v, want ENOKEY", time.Since(away), err)
		}
		if err == nil {
			made++
		}
	}
	if made < 32 || made > 1024 {
		t.Errorf("%d files were made, want as many as there were keys", made)
	}
	n.speakAgain()
	back := time.Now()
	r.until("making files again", func() bool { return writeSynced(r.path("again"), "again") == nil })
	t.Logf("%d files made, worked again after %v", made, time.Since(back))
	r.remount()
	for i := range made {
		if got := r.read(r.path(fmt.Sprintf("file-%d", i))); got != fmt.Sprint(i) {
			t.Fatalf("file %d: %q", i, got)
		}
	}
}
