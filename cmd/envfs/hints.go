package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/envfs/envfs/cmd/envfs/internal/mountopt"
	"github.com/envfs/envfs/cmd/envfs/internal/mounts"
	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/control"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

// hintRow is what a user can do about a class of errors. In the text, PATH
// stands for the path that the error is about.
type hintRow struct {
	class error
	hint  string
}

// hints is the one table of them. The first class that fits counts.
func hints() []hintRow {
	return []hintRow{
		{errNoMountpoint, "make it: mkdir PATH"},
		{errNotEmpty, "mount over it with -o nonempty; what is in it stays, but hidden as long as the mount lasts"},
		{errInsideSource, "choose a directory elsewhere: a mount there would show itself, and backups would take the plaintext along"},
		{errSourceInside, "choose another mountpoint: the mount would hide its own ciphertext"},
		{errSameDirectory, "choose another directory for the plaintext"},
		{errAlreadyMounted, "unmount it first: envfs umount PATH"},
		{errDeadMount, "clear it away: envfs umount PATH"},
		{errNoFuse, "load the kernel module: modprobe fuse; in a container, pass the device on: --device /dev/fuse --cap-add SYS_ADMIN"},
		{errFuseDenied, "give yourself access to /dev/fuse, or mount as root"},
		{errAllowOther, "root can allow it to others: the line user_allow_other in /etc/fuse.conf"},
		{mounts.ErrNoHelper, "install the package fuse3, or mount as root"},
		{errPinned, "if the volume is really yours, give the key that it names; otherwise somebody may have exchanged envfs.json"},
		{errNotVaultKeyring, "leave --transit-key out if you expected a volume with a passphrase; otherwise somebody may have exchanged envfs.json"},
		{errDaemonEnded, "mount with -f to see what it says"},
		{errStillBusy, "end these processes, or hide the mount at once with envfs umount --lazy PATH: what is open then goes on until it is closed"},
		{errNotFinished, "wait before you copy the ciphertext directory; the daemon's log says what it is doing"},
		{errAuditInside, "choose a file elsewhere: a mount must not log what it writes there, and plaintext paths have no place beside the ciphertext"},
		{errFrozen, "wait until whoever has frozen it is done, or let changes go on: envfs thaw PATH"},
		{errThawed, "if it was frozen, its time was up, and what was copied meanwhile may not be complete: take it again with a longer --timeout"},
		{errThawedEarly, "what the command has copied may not be complete: run it again with a longer --timeout"},
		{control.ErrNotServing, "its process hangs, is gone, or could not make its control socket, which its log says; envfs umount PATH clears away a dead mount"},
		{errNotMounted, "findmnt -t fuse.envfs lists the mounts of envfs"},
		{errNotOurMount, "unmount it with umount PATH"},
		{errNoVolume, "name the ciphertext directory, a file in it, or a path inside a mount of it"},
		{errNotWholeVolume, "name the ciphertext directory, or the mountpoint"},
		{errShownInMount, "use cp -a there, or unmount it"},
		{errNoCiphertext, "what is decrypted is named by its ciphertext path, which envfs path encrypt --volume DIR tells"},
		{errCiphertext, "envfs path decrypt tells the plaintext path"},
		{volume.ErrInsideVolume, "choose a place outside of the ciphertext directory"},
		{volume.ErrDestinationExists, "--force replaces files, but not directories; or choose another destination"},
		{errInMount, "unmount it, and name its ciphertext; envfs info tells the path of that"},
		{errVerified, "restore what is damaged from a backup; envfs verify --repair PATH moves what cannot be read out of the way"},
		{volume.ErrBadQuarantine, "name a directory on the same file system, outside of the volume, with --quarantine"},
		{volume.ErrFileOpen, "lsof +D PATH names the processes that have files open"},
		{volume.ErrMoreLinks, "name all directories in which the file has a name"},
		{errOlderKeys, "move them to the newest version: envfs rewrap PATH"},
		{errOutside, "name the ciphertext directory with --volume DIR"},
		{errNoTransitKey, "only volumes made with --keyring vault need a policy"},
		{errNoPassphrase, "rotate the key in Vault instead"},
		{errNoTerminal, "give it by --passphrase-file FILE or --passphrase-command COMMAND"},
		{errEmptyPassphrase, "choose at least one character, better six random words"},
		{errWrongPassphrase, "if you are sure of it, envfs.json may be damaged: compare it with a copy"},
		{errMismatch, "type the same passphrase twice"},
		{volume.ErrNewerFormat, "use the version of envfs that made it, or a newer one"},
		{crypto.ErrNewerVersion, "use the version of envfs that wrote it, or a newer one"},
		{volume.ErrNotVolume, "make it one: envfs init PATH; or name the directory that holds envfs.json"},
		{volume.ErrForgedConfig, "somebody changed envfs.json: restore it from a backup"},
		{volume.ErrDamagedConfig, "restore envfs.json from a backup; it changes only with the passphrase or the key"},
		{volume.ErrJournal, "restore envfs.journal, or put it aside: mv PATH/envfs.journal PATH/envfs.journal.bad; blocks that were being written when the last mount ended may then be unreadable"},
		{volume.ErrReplay, "nothing is lost: remove the cause (a full disk?) and mount again"},
		{volume.ErrExists, "mount it: envfs mount PATH MOUNTPOINT; or choose another directory"},
		{volume.ErrNotEmpty, "choose an empty directory; with --adopt, what is there stays, untouched and hidden from the mount"},
		{volume.ErrLocked, "unmount it there first; several mounts are possible if all of them are read-only (-o ro)"},
		{crypto.ErrForeignName, "the name is not one that this volume's key has made"},
		{keyring.ErrUnreachable, "is the key service up, unsealed, and its address right? See VAULT_ADDR and --vault-addr"},
		{keyring.ErrCorrupt, "the wrapped key is damaged or belongs to another key: restore it from a backup"},
		{keyring.ErrRevoked, "the key, or the version of it that is needed, was deleted or disabled in the key service"},
		{fs.ErrPermission, "check owner and mode, or do it as root"},
	}
}

// hintFor says what the user can do about an error, or nothing.
func hintFor(err error) string {
	var usage *usageError
	var option *mountopt.Error
	switch {
	case errors.As(err, &usage):
		return fmt.Sprintf("see %s --help", usage.command)
	case errors.As(err, &option):
		return "see envfs mount --help for the options"
	case errors.Is(err, context.Canceled):
		return ""
	}
	if hint := keyring.HintOf(err); hint != "" {
		return hint
	}
	for _, row := range hints() {
		if errors.Is(err, row.class) {
			return strings.ReplaceAll(row.hint, "PATH", pathOf(err))
		}
	}
	return ""
}

// pathOf is the path that an error is about, as a word of a command line.
func pathOf(err error) string {
	var p *pathError
	if errors.As(err, &p) {
		return quote(p.path)
	}
	return "DIR"
}

// quote protects a word from the shell if it must be.
func quote(word string) string {
	safe := func(r rune) bool {
		return strings.ContainsRune("/._-+,:@%=", r) ||
			'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !safe(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
