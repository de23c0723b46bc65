package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/envfs/envfs/cmd/envfs/internal/mountopt"
	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

func TestExitCode(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{fs.ErrNotExist, 1},
		{context.Canceled, 1},
		{volume.ErrNotVolume, 1},
		{volume.ErrExists, 1},
		{volume.ErrNotEmpty, 1},
		{volume.ErrNewerFormat, 1},
		{&volume.LockedError{Path: "/data", Holder: 1}, 1},
		{crypto.ErrForeignName, 1},
		{crypto.ErrNewerVersion, 1},
		{&keyring.Error{Class: keyring.ErrConfig}, 1},
		{errNotEmpty, 1},
		{errStillBusy, 1},
		{errEmptyPassphrase, 1},
		{&usageError{}, 2},
		{&mountopt.Error{}, 2},
		{&keyring.Error{Class: keyring.ErrDenied}, 3},
		{&keyring.Error{Class: keyring.ErrRevoked}, 3},
		{errWrongPassphrase, 3},
		{errPinned, 3},
		{errNotVaultKeyring, 3},
		{&keyring.Error{Class: keyring.ErrUnreachable, Err: context.DeadlineExceeded}, 4},
		{&keyring.Error{Class: keyring.ErrCorrupt}, 5},
		{volume.ErrDamagedConfig, 5},
		{volume.ErrForgedConfig, 5},
		{volume.ErrOtherVolume, 5},
		{volume.ErrSwappedKey, 5},
		{volume.ErrSizeMismatch, 5},
		{crypto.ErrHeaderTampered, 5},
		{crypto.ErrTruncatedHeader, 5},
		{crypto.ErrTornTail, 5},
		{crypto.ErrNoSlot, 5},
		{crypto.ErrBadMagic, 5},
		{crypto.ErrChecksum, 5},
		{errDamageFound, 5},
	}
	for _, test := range tests {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("exit code of %v is %d, want %d", test.err, got, test.want)
		}
		if test.err == nil {
			continue
		}
		wrapped := about("/data", fmt.Errorf("volume key: %w", test.err))
		if got := exitCode(errors.Join(wrapped, errors.New("another"))); got != test.want {
			t.Errorf("exit code of %v, wrapped, is %d, want %d", test.err, got, test.want)
		}
	}
}

// A daemon's failure is shown by the process that started it as if it were
// its own.
func TestFailureSurvivesThePipe(t *testing.T) {
	sent := describe(about("/data", errWrongPassphrase))
	text, err := json.Marshal(daemonStatus{Failure: &sent})
	if err != nil {
		t.Fatal(err)
	}
	received, err := readStatus(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(received.Failure); got != sent || got.Code != exitDenied {
		t.Errorf("received %+v, sent %+v", got, sent)
	}
}

func TestReadStatusOfDeadDaemon(t *testing.T) {
	for _, text := range []string{"", `{"failure":{"mess`} {
		if _, err := readStatus(strings.NewReader(text)); !errors.Is(err, errDaemonEnded) {
			t.Errorf("status %q gives %v", text, err)
		}
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	a := &app{stderr: &out}
	code := a.report(errors.Join(about("/mnt/two words", errNoMountpoint), errors.New("and more")))
	want := "envfs: /mnt/two words: mountpoint does not exist\nenvfs: and more\nhint: make it: mkdir '/mnt/two words'\n"
	if code != exitFailure || out.String() != want {
		t.Errorf("code %d, output\n%q, want\n%q", code, out.String(), want)
	}
	out.Reset()
	if a.report(nil) != exitOK || out.String() != "" {
		t.Errorf("success prints %q", out.String())
	}
}
