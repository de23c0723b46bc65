package main

import (
	"errors"

	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/keyring"
)

// What the commands themselves find wrong. Those that are about a path come
// wrapped in a *pathError.
var (
	errInterrupted = errors.New("interrupted")

	// Of a mount, before anything is done.
	errNoMountpoint    = errors.New("mountpoint does not exist")
	errNotDirectory    = errors.New("mountpoint is not a directory")
	errNotEmpty        = errors.New("mountpoint is not empty")
	errInsideSource    = errors.New("mountpoint is inside the ciphertext directory")
	errSourceInside    = errors.New("ciphertext directory is inside the mountpoint")
	errSameDirectory   = errors.New("mountpoint is the ciphertext directory itself")
	errAlreadyMounted  = errors.New("an envfs is mounted here already")
	errDeadMount       = errors.New("a mount whose daemon is gone is in the way")
	errNoFuse          = errors.New("FUSE is not available")
	errFuseDenied      = errors.New("FUSE may not be used")
	errAllowOther      = errors.New("allow_other is for root only on this machine")
	errPinned          = errors.New("the volume names another Transit key")
	errNotVaultKeyring = errors.New("the volume has no Transit key, but --transit-key was given")
	errDaemonEnded     = errors.New("the daemon ended before the mount was usable")

	// Of a mount that is there.
	errNotMounted  = errors.New("not a mountpoint")
	errNotOurMount = errors.New("not a mount of envfs")
	errStillBusy   = errors.New("mount is busy")
	errNotFinished = errors.New("unmounted, but the daemon has not finished")
	errFrozen      = fs.ErrFrozen
	errThawed      = fs.ErrThawed
	errEnding      = fs.ErrEnding
	errThawedEarly = errors.New("thawed before the command had ended")

	// Of paths.
	errOutside  = errors.New("path is outside the volume")
	errNoVolume = errors.New("no volume at or above this path")

	errWrongPassphrase = error(classedError{"wrong passphrase", keyring.ErrDenied})
	errNoPassphrase    = errors.New("the volume has no passphrase: its keyring is vault")
)

// classedError is an error of a class whose text says it better.
type classedError struct {
	text  string
	class error
}

func (e classedError) Error() string { return e.text }

func (e classedError) Unwrap() error { return e.class }

// pathError is an error about a path. Its hint may mention the path.
type pathError struct {
	path  string
	err   error
	named bool // err's text names the path already
}

func (e *pathError) Error() string {
	if e.named {
		return e.err.Error()
	}
	return e.path + ": " + e.err.Error()
}

func (e *pathError) Unwrap() error { return e.err }

// about adds the path to an error whose text lacks it.
func about(path string, err error) error {
	if err == nil {
		return nil
	}
	return &pathError{path: path, err: err}
}

// aboutNamed adds the path, for the hint, to an error whose text has it.
func aboutNamed(path string, err error) error {
	if err == nil {
		return nil
	}
	return &pathError{path: path, err: err, named: true}
}
