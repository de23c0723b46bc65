package integration

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// backup is a program that copies the ciphertext directory away and brings it back. The scripts find the paths of the rig, and
// a directory for the copies in $COPIES, in which backup may find an earlier one; restore is run in an empty directory.
type backup struct {
	name            string
	needs           []string
	backup, restore string
}

func backups() []backup {
	return []backup{
		{"rsync", []string{"rsync"}, `rsync -aHAXS --modify-window=-1 ${LAST:+--checksum} --delete "$DATA/" "$COPIES/data/" || [ $? = 24 ] # a file is gone`,
			`rsync -aHAXS --modify-window=-1 "$COPIES/data/" .`},
		{"restic", []string{"restic"}, resticEnv + `
			[ -e "$COPIES/config" ] || restic -q init
			cd "$DATA"; restic -q --no-cache backup . || [ $? = 3 ] # likewise
			[ -z "$LAST" ] || restic -q --no-cache check --read-data`, resticEnv + `
			restic -q --no-cache restore latest --target .`},
		{"borg", []string{"borg"}, borgEnv + `
			[ -e "$COPIES/config" ] || borg init --encryption none
			cd "$DATA"; borg create --numeric-ids "::$(date +%s.%N)" . || [ $? = 1 ] # a file is gone, or has changed meanwhile
			[ -z "$LAST" ] || borg check --verify-data`, borgEnv + `
			borg extract --numeric-ids --sparse "::$(borg list --last 1 --short)"`},
		{"tar", []string{"tar"}, tarAll + ` -C "$DATA" -cpf "$COPIES/data.tar" . || [ $? = 1 ] # likewise`, tarAll + ` -xpf "$COPIES/data.tar"`},
	}
}

const (
	resticEnv = `export RESTIC_PASSWORD=x RESTIC_REPOSITORY="$COPIES"`
	borgEnv   = `export BORG_REPO="$COPIES" BORG_BASE_DIR="$BASE/home" BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes`
	tarAll    = `tar --xattrs --xattrs-include='*' --acls --sparse --numeric-owner`
)

// TestBackups copies the ciphertext directory of a mount with each program, changes the files, copies again, restores, and
// compares: with nobody at work, in a freeze while programs write, and while they write.
func TestBackups(t *testing.T) {
	for _, b := range backups() {
		t.Run(b.name, func(t *testing.T) {
			need(t, b.needs...)
			r := mounted(t)
			r.mkdir(r.below("copies"))
			makeTree(t, r.path("tree"))
			r.remount() // all is sealed

			r.backUp(b)
			r.restored(b, "idle", func(restored string) { r.whole(restored) })
			r.changeTree()
			r.remount()
			r.backUp(b)
			r.restored(b, "changed", func(restored string) { r.whole(restored) })

			s := r.startSyncing("busy")
			for range 2 {
				s.goOn()
			}
			r.backUpFrozen(b, s)
			s.goOn()
			r.backUp(b)
			s.goOn()
			r.restored(b, "busy", r.wholeButBusy)
			s.end()

			// What was hit while it was being written is copied again, since it has changed.
			r.remount()
			b.backup = "LAST=1; " + b.backup
			r.backUp(b)
			r.restored(b, "idle again", func(restored string) { r.whole(restored) })
		})
	}
}

// backUp runs the program.
func (r *rig) backUp(b backup) {
	r.t.Helper()
	r.sh2(r.scriptOf(b.backup))
}

func (r *rig) scriptOf(script string) string {
	return `LAST=; export COPIES="$BASE/copies"; ` + script
}

// restored restores, verifies and decrypts the newest copy, and compares it with what the mount shows.
func (r *rig) restored(b backup, when string, verify func(restored string)) {
	r.t.Helper()
	restored, clear := r.below("restored"), r.below("decrypted")
	r.mkdir(restored)
	r.sh2(`cd restored; ` + r.scriptOf(b.restore))
	verify(restored)
	if out := r.envfs("decrypt", "--passphrase-file", r.pass, path.Join(restored, r.stored("tree")), clear); out.code != 0 {
		r.t.Errorf("%s: %s", when, out.stderr)
	}
	sameTree(r.t, snapshot(r.t, r.path("tree")), snapshot(r.t, clear))
	r.removed(restored)
	r.removed(clear)
}

// stored is the path of an entry of the mount below the ciphertext directory.
func (r *rig) stored(name string) string {
	r.t.Helper()
	return strings.TrimSpace(r.envfs("path", "encrypt", "--passphrase-file", r.pass, "--volume", r.dir, name).ok().stdout)
}

// changeTree makes a change of each kind that there is.
func (r *rig) changeTree() {
	r.t.Helper()
	r.sh(`cd tree
		printf x | dd of=file-1048576 bs=1 seek=500000 conv=notrunc status=none
		printf more >> file-100000; truncate -s 5000 file-8192; rm file-4095 deep/symlink; mv empty filled; echo new > filled/new
		chmod 600 run; ln file-1 deep/second; ln -s elsewhere link; : > emptied; mv deep/er deeper; fallocate -p -o 0 -l 8192 file-100000`)
	for file, value := range map[string]string{"file-1": "changed", "run": "new"} {
		if err := unix.Setxattr(r.path("tree", file), "user.comment", []byte(value), 0); err != nil {
			r.t.Fatal(err)
		}
	}
}

// backUpFrozen runs the program in a freeze: the copy is whole and sealed, and what the programs at work had synced is in it.
func (r *rig) backUpFrozen(b backup, s *syncing) {
	r.t.Helper()
	script := `cp -r ` + s.ledgers + ` "$BASE/then"; ` + r.scriptOf(b.backup)
	r.sh2(`envfs freeze "$CLEAR" -- bash -euo pipefail -c '` + strings.ReplaceAll(script, `'`, `'\''`) + `'`)
	r.restored(b, "frozen", func(restored string) {
		r.whole(restored)
		busy := r.below("busy")
		r.envfs("decrypt", "--passphrase-file", r.pass, path.Join(restored, r.stored("busy")), busy).ok()
		checkSynced(r.t, busy, r.below("then"))
		r.removed(busy)
	})
}

// wholeButBusy demands that nothing is damaged that was left alone during the backup. A file that is changed in place while it is
// read is a mixture, and one that goes away may leave its long name behind, or be left without.
func (r *rig) wholeButBusy(restored string) {
	r.t.Helper()
	v := r.verify(restored)
	for _, f := range v.Findings {
		if f.Kind == "journal" {
			continue // that of the mount, which was in use
		}
		if !strings.HasPrefix(f.Plaintext, "busy/") || f.Class != "notice" && !slices.Contains([]string{"block", "size", "lost-name"}, f.Kind) {
			r.t.Errorf("%+v", f)
		}
	}
	r.t.Logf("copied while in use: damage %v, notices %v", v.kinds("damage"), v.kinds("notice"))
}

// TestRsyncDelta changes 1 MiB of a file: rsync sends that, and hardly more.
func TestRsyncDelta(t *testing.T) {
	need(t, "rsync")
	r := mounted(t)
	const mib = 1 << 20
	size := soaking(64, 1024)
	r.sh(fmt.Sprintf(`dd if=/dev/zero of=big bs=1M count=%d status=none`, size))
	r.remount()
	big := r.ciphertextOf("big")
	r.sh2(`cp -a "$DATA" copy`)
	r.sh(fmt.Sprintf(`dd if=/dev/urandom of=big bs=1M count=1 seek=%d conv=notrunc status=none`, size/3))
	r.remount()
	out := r.sh2(`rsync -a --modify-window=-1 --no-whole-file --inplace --stats "$DATA/" copy/`)
	stats := map[string]int{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(line, ": ")
		var n int
		if _, err := fmt.Sscan(strings.ReplaceAll(value, ",", ""), &n); err == nil {
			stats[name] = n
		}
	}
	t.Logf("of %d MiB, rsync sent %d bytes of data, %d in all", size, stats["Literal data"], stats["Total bytes sent"])
	if n := stats["Literal data"]; n < mib || n > mib*11/10 {
		t.Errorf("rsync sent %d bytes of data for 1 MiB\n%s", n, out)
	}
	if stats["Matched data"] < (size-2)*mib {
		t.Errorf("not by what is there already:\n%s", out)
	}
	r.sh2(`cmp '` + big + `' "copy/$(basename '` + big + `')"`)
	r.whole(r.below("copy"))
}
