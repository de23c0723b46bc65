package main

import (
	"context"
	"errors"

	"github.com/envfs/envfs/cmd/envfs/internal/mountopt"
	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

// The exit codes. Scripts rely on them.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDenied      = 3
	exitUnreachable = 4
	exitDamage      = 5
)

const exitCodeTable = `Exit codes:
  0  done
  1  failed: the message says why
  2  the command line is wrong
  3  wrong passphrase, or access denied by the key service
  4  the key service cannot be reached
  5  damage or tampering found
`

// failure is an error as it is shown: by this process, or by the one that
// started it as a daemon.
type failure struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Code    int    `json:"code"`
}

func (f *failure) Error() string { return f.Message }

// describe turns an error into what is shown of it.
func describe(err error) failure {
	var f *failure
	if errors.As(err, &f) {
		return *f
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, errInterrupted) {
		err = errInterrupted
	}
	return failure{Message: err.Error(), Hint: hintFor(err), Code: exitCode(err)}
}

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var usage *usageError
	var option *mountopt.Error
	if errors.As(err, &usage) || errors.As(err, &option) {
		return exitUsage
	}
	for _, row := range exitCodes() {
		if errors.Is(err, row.class) {
			return row.code
		}
	}
	if volume.IsDamage(err) {
		return exitDamage
	}
	return exitFailure
}

type exitCodeRow struct {
	class error
	code  int
}

// exitCodes lists the classes of errors whose code does not follow from
// volume.IsDamage. The first that fits counts.
func exitCodes() []exitCodeRow {
	return []exitCodeRow{
		{errPinned, exitDenied},
		{errNotVaultKeyring, exitDenied},
		{errDamageFound, exitDamage},
		{keyring.ErrUnreachable, exitUnreachable},
		{keyring.ErrDenied, exitDenied},
		{keyring.ErrRevoked, exitDenied},
		{keyring.ErrCorrupt, exitDamage},
		{volume.ErrDamagedConfig, exitDamage},
		{volume.ErrForgedConfig, exitDamage},
		{volume.ErrNewerFormat, exitFailure},
		{crypto.ErrNewerVersion, exitFailure}, // needs a newer envfs, nothing is lost
		{crypto.ErrForeignName, exitFailure},  // somebody else's file
	}
}
