package integration

import (
	"strings"
	"testing"
)

// sourceRepository makes a repository beside the mount, with a few hundred files and some history.
func sourceRepository(r *rig) {
	r.t.Helper()
	r.mkdir(r.below("upstream"))
	r.sh(`cd "$BASE/upstream"; git init -q -b main
		for i in $(seq 400); do
			mkdir -p "d$((i % 20))/sub"; seq "$i" "$((i * 7))" > "d$((i % 20))/sub/file-$i.txt"
		done
		head -c 300000 /dev/urandom > blob.bin; ln -s blob.bin link; printf '#!/bin/sh\n' > run.sh; chmod +x run.sh
		git add .; git commit -qm first
		for i in 1 2 3 4 5; do echo "$i" >> d1/sub/file-1.txt; echo "$i" > "new-$i"; git add .; git commit -qm "change $i"; done`)
}

// clean demands that git finds the work tree unchanged, and, where stat data are to be trusted, without reading a file:
// diff-files names what has stat data of another kind than the index, whatever its content.
func clean(r *rig, when string, statsToo bool) {
	r.t.Helper()
	if statsToo {
		if out := r.sh(`git -C repo diff-files --name-only`); out != "" {
			r.t.Errorf("%s: git must read %d files again:\n%s", when, strings.Count(out, "\n"), out)
		}
	}
	if out := r.sh(`git -C repo status --porcelain`); out != "" {
		r.t.Errorf("%s: git sees changes:\n%s", when, out)
	}
}

// TestGit clones, commits, rewrites and checks a repository.
func TestGit(t *testing.T) {
	need(t, "git")
	r := mounted(t)
	sourceRepository(r)
	r.sh(`git clone -q "file://$BASE/upstream" repo`)
	clean(r, "after clone", true)
	r.sh(`cd repo; for i in $(seq 50); do echo "change $i" >> "d3/sub/file-$((3 + 20 * (i % 20))).txt"; done
		git mv d4 moved; git rm -q blob.bin; head -c 100000 /dev/urandom > added.bin; git add -A; git commit -qm "many changes"`)
	clean(r, "after commit", true)
	// Closed files are sealed in the background. It moves no time that git looks at.
	r.sh(`cd repo; git checkout -q HEAD~1; git checkout -q main; git branch side HEAD~2; git checkout -q side
		echo side > side.txt; git add .; git commit -qm side; git merge -q -m merge main; git stash list
		git gc -q --aggressive --prune=now; git fsck --full --strict`)
	clean(r, "after gc", true)
	r.sh(`echo last > last`)
	r.settle("last")
	if !strings.Contains(r.envfs("info", "--json", r.path("repo/side.txt")).ok().stdout, `"sealed": true`) {
		t.Error("a file written before is not sealed yet")
	}
	clean(r, "some seconds later", true)
	commit := r.sh(`git -C repo rev-parse HEAD`)

	r.remount()
	// What the backing file system calls the time of change may have moved while files were sealed; nothing else has.
	if out := r.sh(`git -C repo -c core.trustctime=false diff-files --name-only`); out != "" {
		t.Errorf("after a remount, with core.trustctime=false, git must read again:\n%s", out)
	}
	clean(r, "after a remount", false)
	clean(r, "after a refresh", true)
	if out := r.sh(`cd repo; git fsck --full --strict; git rev-parse HEAD`); out != commit {
		t.Errorf("HEAD is %q, was %q", out, commit)
	}
	r.sh(`git clone -q "file://$CLEAR/repo" "$BASE/downstream"; git -C "$BASE/downstream" fsck --full --strict`)
}

// settle waits until a file that was written last is sealed, and with it all those before.
func (r *rig) settle(file string) {
	r.t.Helper()
	r.until("sealing of "+file, func() bool {
		return strings.Contains(r.envfs("info", "--json", r.path(file)).ok().stdout, `"sealed": true`)
	})
}
