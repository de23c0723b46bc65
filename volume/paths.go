package volume

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
)

// EncryptPath translates a path below the root of the clear view into the path
// of the same file below the ciphertext directory. Both are relative and
// separated by slashes; "." is the root. It asks neither disk nor key service,
// and says nothing about whether there is such a file. Errors: ErrBadPath,
// unix.ENAMETOOLONG, and ErrReservedName: without encrypted names, those that
// envfs keeps for itself in a ciphertext directory cannot be used. (Encrypted
// ones never look like them, since base64url has no dot.)
func (v *Volume) EncryptPath(rel string) (string, error) {
	return eachName(rel, func(_ []string, name string) (string, error) {
		encoded, err := v.EncodeName(name)
		return encoded.Stored, err
	})
}

// DecryptPath is the inverse of EncryptPath. Names that were too long to be
// stored as they are need the directory they are in to be there, as it holds
// what they stand for; where that is lost they stay as they are, as in a mount.
// Errors: ErrBadPath, ErrReservedName, crypto.ErrForeignName, or one of opening
// the directory.
func (v *Volume) DecryptPath(rel string) (string, error) {
	return eachName(rel, func(parents []string, stored string) (name string, err error) {
		if v.names != nil && crypto.IsLong(stored) {
			name, err = v.decodeLongBelow(parents, stored)
		} else {
			name, err = v.DecodeName(-1, stored)
		}
		if errors.Is(err, ErrHidden) {
			return "", ErrReservedName
		}
		return name, err
	})
}

// eachName translates each name of a path; translate gets the untranslated
// names before it. ".." is refused instead of resolved: after a symbolic link
// it would lead elsewhere than its text says.
func eachName(rel string, translate func(parents []string, name string) (string, error)) (string, error) {
	if strings.HasPrefix(rel, "/") || strings.ContainsRune(rel, 0) {
		return "", fmt.Errorf("%q: %w", rel, ErrBadPath)
	}
	var from, to []string
	for name := range strings.SplitSeq(rel, "/") {
		switch name {
		case "", ".":
			continue
		case "..":
			return "", fmt.Errorf("%q: %w", rel, ErrBadPath)
		}
		translated, err := translate(from, name)
		if err != nil {
			return "", fmt.Errorf("%q: %w", rel, err)
		}
		from, to = append(from, name), append(to, translated)
	}
	if len(to) == 0 {
		return ".", nil
	}
	return path.Join(to...), nil
}

// decodeLongBelow decodes a long name in the directory that parents lead to. It
// descends name by name, without following symbolic links.
func (v *Volume) decodeLongBelow(parents []string, stored string) (_ string, err error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY
	dir, err := v.store.Open(int(v.root.Fd()), ".", flags, 0)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, v.store.Close(dir)) }()
	for _, name := range parents {
		next, err := v.store.Open(dir, name, flags, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: name, Err: err}
		}
		dir, next = next, dir
		if err := v.store.Close(next); err != nil {
			return "", err
		}
	}
	return v.DecodeName(dir, stored)
}
