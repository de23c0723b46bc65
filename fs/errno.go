package fs

import (
	"context"
	"errors"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// errnos is the one table from errors to what an application sees. The first row that matches decides; an error that is
// none of these and carries an errno of the backing file system is passed on as it is, and anything else is EIO.
var errnos = []struct {
	is    error
	errno unix.Errno
}{
	{context.Canceled, unix.EINTR},
	{keyring.ErrDenied, unix.EACCES},
	{keyring.ErrRevoked, unix.EKEYREVOKED},
	{keyring.ErrUnreachable, unix.ENOKEY},
	{keyring.ErrConfig, unix.ENOKEY},
	{context.DeadlineExceeded, unix.ENOKEY},
	{keyring.ErrCorrupt, unix.EIO},
	{volume.ErrReadOnly, unix.EBADF},
	{volume.ErrReservedName, unix.EPERM},
	{volume.ErrLocked, unix.EBUSY},
	{volume.ErrFileOpen, unix.EBUSY},
	{volume.ErrFileChanged, unix.EBUSY},
	{volume.ErrMoreLinks, unix.EMLINK},
	{crypto.ErrTargetTooLong, unix.ENAMETOOLONG},
}

// Errno returns what an application sees of an error, and the audit log says of it; 0 for nil.
func Errno(err error) unix.Errno { return errnoOf(err) }

func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, bare := err.(unix.Errno); bare { // as most are, and none of the table is
		return errno
	}
	for _, row := range errnos {
		if errors.Is(err, row.is) {
			return row.errno
		}
	}
	if volume.IsDamage(err) {
		return unix.EIO
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}

func statusOf(err error) fuse.Status { return fuse.Status(errnoOf(err)) }
