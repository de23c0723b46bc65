package integration

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// TestOfflineAndMount: what a mount wrote is decrypted offline as the mount shows it, and what was encrypted offline is shown by a
// mount as it was.
func TestOfflineAndMount(t *testing.T) {
	for name, flags := range map[string][]string{"encrypted names": nil, "plaintext names": {"--plaintext-names"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, flags...)
			pass := []string{"--passphrase-file", r.pass}
			offline := func(command string, args ...string) {
				t.Helper()
				r.envfs(append(append([]string{command}, pass...), args...)...).ok()
			}
			makeTree(t, r.below("tree"))
			want := snapshot(t, r.below("tree"))
			r.mount()
			r.sh(`cp -a --sparse=always "$BASE/tree" .`)
			makeTree(t, r.path("made"))
			made := snapshot(t, r.path("made"))
			r.umount()

			offline("decrypt", r.dir, r.below("out"))
			sameTree(t, want, snapshot(t, r.below("out/tree")))
			sameTree(t, made, snapshot(t, r.below("out/made")))
			isSparse(t, r.below("out/tree/sparse"))

			offline("encrypt", "--volume", r.dir, r.below("tree"), "again")
			r.mount()
			sameTree(t, want, snapshot(t, r.path("again")))
			isSparse(t, r.path("again/sparse"))
			r.sh(`cmp again/sparse tree/sparse; echo more >> again/sparse; mv again moved; rm -r moved`)
		})
	}
}

// TestOfflineWithVault encrypts and decrypts with the smallest policies, and counts what Vault is asked.
func TestOfflineWithVault(t *testing.T) {
	r, s := newVaultRig(t, nil)
	const files = 1000
	r.sh(`mkdir "$BASE/many"; cd "$BASE/many"; for i in $(seq 1000); do echo "file $i" > "$i"; done`)
	r.envfs("encrypt", "--transit-key", "docs", "--volume", r.dir, r.below("many"), ".").ok()
	target, err := url.Parse(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	pass := httputil.NewSingleHostReverseProxy(target)
	counting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		pass.ServeHTTP(w, req)
	}))
	defer counting.Close()
	r.login(s, s.Token(0, "readonly"))
	r.env = append(r.env, "VAULT_ADDR="+counting.URL)
	out := r.envfs("decrypt", "--json", "--transit-key", "docs", r.dir, r.below("back")).ok()
	n := asked.Load()
	t.Logf("%d requests for %d files", n, files)
	if n < 4 || n > files/20 {
		t.Error("too many requests, or not through the counter")
	}
	var report struct{ Files, Failed int }
	if err := json.Unmarshal([]byte(out.stdout), &report); err != nil || report.Files != files || report.Failed != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	r.sh(`diff -r "$BASE/many" "$BASE/back"`)
	r.envfs("encrypt", "--volume", r.dir, r.below("many/1"), "more").fails(3, "denied")
	r.envfs("decrypt", "--transit-key", "other", r.dir, r.below("pinned")).fails(3, "names another Transit key")
}
