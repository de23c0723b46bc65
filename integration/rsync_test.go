package integration

import (
	"strings"
	"testing"
)

// TestRsync copies a tree in, changes it, copies the changes, and copies it out.
func TestRsync(t *testing.T) {
	need(t, "rsync", "setfattr")
	copyModes(t, func(t *testing.T, r *rig) {
		same := func() {
			t.Helper()
			sameTree(t, snapshot(t, r.below("tree")), snapshot(t, r.path("tree")))
			if again := r.sh(`rsync --modify-window=-1 -aHAX --delete --itemize-changes "$BASE/tree/" tree/`); again != "" {
				t.Errorf("a second run finds changes:\n%s", again)
			}
		}
		r.sh(`rsync --modify-window=-1 -aHAXS "$BASE/tree/" tree/`)
		same()

		r.remount()
		same()

		// Changes of every kind, written into the files in place, then to new ones that replace them.
		r.sh(`cd "$BASE/tree"
			printf x | dd of=file-1048576 bs=1 seek=500000 conv=notrunc status=none
			printf more >> file-100000; truncate -s 5000 file-8192; rm file-4095 deep/symlink; mv empty filled; echo new > filled/new
			chmod 600 run; ln file-1 deep/second; setfattr -n user.comment -v other file-1
			rsync --modify-window=-1 -aHAX --inplace --no-whole-file --delete . "$CLEAR/tree/"`)
		same()
		r.sh(`cd "$BASE/tree"
			printf y | dd of=file-1048576 bs=1 seek=500001 conv=notrunc status=none
			rm -r filled; printf more >> file-1
			rsync --modify-window=-1 -aHAX --no-whole-file --delete-after . "$CLEAR/tree/"`)
		same()

		// And out.
		r.remount()
		r.sh(`rsync --modify-window=-1 -aHAXS tree/ "$BASE/back/"`)
		sameTree(t, snapshot(t, r.below("tree")), snapshot(t, r.below("back")))
		if again := r.sh(`rsync --modify-window=-1 -aHAX --checksum --delete --itemize-changes tree/ "$BASE/back/"`); again != "" {
			t.Errorf("a second run out finds changes:\n%s", again)
		}
		isSparse(t, r.path("tree/sparse"))
		if left := r.sh(`find . -name '.*.??????'`); strings.TrimSpace(left) != "" {
			t.Errorf("rsync's temporary files are left: %s", left)
		}
	})
}
