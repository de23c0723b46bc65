package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/envfs/envfs/integration/farvault"
)

// farAway puts a distance between the rig and its server, for a token of the policy readwrite.
func (r *rig) farAway(address, token string, rtt time.Duration) *farvault.Vault {
	r.t.Helper()
	far, err := farvault.New(address, rtt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := far.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.env = []string{"HOME=" + r.below("home"), "VAULT_ADDR=" + far.Address, "VAULT_TOKEN=" + token}
	return far
}

// requests counts what Vault is asked while something is done.
func (r *rig) requests(far *farvault.Vault, do func()) int64 {
	r.t.Helper()
	count := func() int64 {
		n, err := far.Settle(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		return n
	}
	before := count()
	do()
	return count() - before
}

// TestVaultRequests counts the requests to Vault that real programs cause: none where no key is needed, and at most 20 for each
// 1,000 files that are made, or read in the order of a directory or, as cp does, of inode numbers.
func TestVaultRequests(t *testing.T) {
	need(t, "tar", "grep", "find", "du")
	for _, rtt := range []time.Duration{0, 10 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			r, s := newVaultRig(t, nil)
			far := r.farAway(s.Address, s.Token(0, "readwrite"), rtt)
			r.mount("--transit-key", "docs")
			const files = 3000
			r.mkdir(r.below("src"))
			run(t, nil, r.below("src"), "bash", "-euc", fmt.Sprintf(`
				mkdir flat; for i in $(seq 1500); do echo "file $i" > flat/$i; done
				for d in $(seq 60); do mkdir -p nested/$((d %% 7))/$d; for i in $(seq 25); do echo "needle $i" > nested/$((d %% 7))/$d/$i; done; done
				test "$(find . -type f | wc -l)" = %d; tar cf ../src.tar .`, files)).ok()

			for _, work := range []struct{ name, script string }{
				{"untar", `mkdir tree; tar xf ../src.tar -C tree`},
				{"cp -a into the mount", `cp -a ../src copied`},
				{"tar", `tar cf - tree | cat > /dev/null`},
				{"grep -r", `test "$(grep -r needle tree | wc -l)" = 1500`},
				{"find -exec cat", `find tree -type f -exec cat {} + > /dev/null`},
				{"cp -a out of the mount", `cp -a tree ../out; diff -r ../src ../out`},
			} {
				asked := r.requests(far, func() { r.sh(work.script) })
				if asked > files*20/1000 {
					t.Errorf("%s: %d requests for %d files", work.name, asked, files)
				}
				t.Logf("%s: %d requests for %d files", work.name, asked, files)
				r.remount("--transit-key", "docs")
			}
			for _, script := range []string{
				`du -s . > /dev/null`, `ls -lR . > /dev/null`, `mv tree moved; mv moved/flat flat; mv flat/1 flat/one`,
				`chmod -R g+r moved; touch -c moved/nested`, `rm -rf copied moved flat`,
			} {
				if asked := r.requests(far, func() { r.sh(script) }); asked != 0 {
					t.Errorf("%s: %d requests", script, asked)
				}
				r.remount("--transit-key", "docs")
			}
		})
	}
}
