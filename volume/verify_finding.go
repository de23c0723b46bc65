package volume

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
)

// FindingClass says how much a finding matters.
type FindingClass string

// The classes of findings.
const (
	// ClassDamage: something cannot be read as it was written.
	ClassDamage FindingClass = "damage"
	// ClassNotice: nothing is lost, but somebody may want to know.
	ClassNotice FindingClass = "notice"
	// ClassUnchecked: it could not be found out whether it can be read.
	ClassUnchecked FindingClass = "unchecked"
)

// FindingKind says what a finding is about.
type FindingKind string

// The kinds of findings. Those of the first group are damage, of the second notices; of the third something is unchecked.
const (
	KindHeader    FindingKind = "header"    // no usable header, or the key of another file
	KindSize      FindingKind = "size"      // a sealed file that was cut or extended
	KindBlock     FindingKind = "block"     // blocks that cannot be read
	KindName      FindingKind = "name"      // a name that this volume did not make, though it looks like one
	KindLostName  FindingKind = "lost-name" // a long name whose sidecar is missing or wrong
	KindLink      FindingKind = "link"      // the target of a symbolic link
	KindAttribute FindingKind = "attribute" // the value of an extended attribute

	KindUnsealed FindingKind = "unsealed" // a file that is being written, or was when its writer died
	KindHollow   FindingKind = "hollow"   // a file of which there is only the size
	KindTorn     FindingKind = "torn"     // blocks of such a file that were never synced, and read as zeros
	KindSlot     FindingKind = "slot"     // the header slot that does not count is damaged
	KindOrphan   FindingKind = "orphan"   // the sidecar of a long name that is gone
	KindLeftover FindingKind = "leftover" // a temporary file of a rekey or of envfs.json
	KindJournal  FindingKind = "journal"  // the journal of a mount that did not end well
	KindForeign  FindingKind = "foreign"  // an entry that is none of envfs'

	KindKey        FindingKind = "key"        // the key service refuses the key
	KindUnreadable FindingKind = "unreadable" // the file system refuses to read
	KindNewer      FindingKind = "newer"      // written by a newer version of envfs
	KindChanged    FindingKind = "changed"    // it did not stay as it was for long enough
	KindRepair     FindingKind = "repair"     // it could not be sealed or moved
)

// Finding is something that Verify has found. Programs may read it.
type Finding struct {
	Class     FindingClass `json:"class"`
	Kind      FindingKind  `json:"kind"`
	Path      string       `json:"path"`           // in the ciphertext directory
	Plaintext string       `json:"plaintext_path"` // names that cannot be decrypted stand in it as they are stored
	FileID    crypto.ID    `json:"file_id,omitzero"`
	Block     *int64       `json:"block,omitempty"`     // the first block that is concerned
	Blocks    int64        `json:"blocks,omitempty"`    // how many are, from that one on
	Attribute string       `json:"attribute,omitempty"` // the name of one, as applications see it
	Reason    string       `json:"reason"`
	Resealed  bool         `json:"resealed,omitempty"` // an unsealed file was sealed
	Err       error        `json:"-"`                  // behind Reason, or nil
}

// found counts and tells a finding.
func (w *verify) found(f Finding) {
	if w.ctx.Err() != nil && f.Class == ClassUnchecked {
		return // it has ended because the work has
	}
	if f.Reason == "" && f.Err != nil {
		f.Reason = f.Err.Error()
	}
	switch f.Class {
	case ClassDamage:
		w.count.damage.Add(1)
	case ClassNotice:
		w.count.notices.Add(1)
	case ClassUnchecked:
		w.count.unchecked.Add(1)
	}
	if w.Found == nil {
		return
	}
	if f.Path == "" {
		f.Path = "."
	}
	f.Plaintext = w.v.plaintextPath(f.Path)
	w.telling.Lock()
	defer w.telling.Unlock()
	w.Found(f)
}

// unreadable reports what could not be looked at.
func (w *verify) unreadable(rel string, err error) {
	w.found(Finding{Class: ClassUnchecked, Kind: KindUnreadable, Path: rel, Err: err})
}

// plaintextPath is DecryptPath for messages: names that cannot be decrypted stay as they are.
func (v *Volume) plaintextPath(rel string) string {
	plain, err := v.DecryptPath(rel)
	if err == nil {
		return plain
	}
	dir, name := path.Split(rel)
	if dir == "" {
		return name
	}
	if v.names != nil && !crypto.IsReserved(name) {
		if decoded, err := v.names.Decrypt(name); err == nil {
			name = decoded
		}
	}
	return path.Join(v.plaintextPath(strings.TrimSuffix(dir, "/")), name)
}

// aboutFile makes a finding of an error of opening a file.
func aboutFile(err error) Finding {
	f := Finding{Class: ClassDamage, Kind: KindHeader, Err: err}
	switch {
	case errors.Is(err, crypto.ErrNewerVersion), errors.Is(err, crypto.ErrUnsupported):
		f.Class, f.Kind = ClassUnchecked, KindNewer
	case errors.Is(err, ErrFileChanged):
		f.Class, f.Kind = ClassUnchecked, KindChanged
	case errors.Is(err, ErrSizeMismatch):
		f.Kind = KindSize
	case errors.Is(err, keyring.ErrCorrupt), errors.Is(err, unix.EIO), IsDamage(err):
	case keyring.Class(err) != nil:
		f.Class, f.Kind = ClassUnchecked, KindKey
	default:
		f.Class, f.Kind = ClassUnchecked, KindUnreadable
	}
	return f
}
