package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/envfs/envfs/keyring/vault"
	"github.com/envfs/envfs/volume"
)

const doctorLong = `Look at everything that a mount needs, and say of each thing whether it is well
and what to do if it is not:
  system   versions, FUSE and its helper, mount.envfs, limits, swap
  volume   format of envfs.json, the key that it names, who uses it
  vault    address, TLS, seal, clock, login, token, the Transit key, and each
           capability that --role needs
Vault is looked at if the volume DIR has a Transit key, or, without a DIR, if an
address or a key is given. Nothing is changed; a token that a login gives is
revoked at the end. A wrapped secret ID is not used up: its wrapping token is
looked at only.

A warning is something that works but should not stay so. The command exits with
0 if there is no problem; otherwise with 4 if Vault cannot be reached, with 3 if
it refuses the login or the token lacks a capability, with 5 if the volume is
damaged, and with 1 if it is anything else.`

const doctorExample = `  envfs doctor
  envfs doctor /data2
  envfs doctor --role readonly --json /data2`

// status is how a thing was found.
type status string

const (
	statusOK      status = "ok"
	statusWarning status = "warning"
	statusProblem status = "problem"
)

// finding is one thing that was looked at. Programs may read it.
type finding struct {
	Area   string `json:"area"` // system, vault, volume
	Name   string `json:"name"` // of the thing
	Status status `json:"status"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"` // what to do
	code   int    // exit code of a problem
}

// doctorReport is what envfs doctor says. Programs may read it.
type doctorReport struct {
	Findings []finding `json:"findings"`
	OK       int       `json:"ok"`
	Warnings int       `json:"warnings"`
	Problems int       `json:"problems"`
}

// section adds findings of one area.
type section struct {
	area   string
	report *doctorReport
}

func (s section) add(f finding) {
	f.Area = s.area
	switch f.Status {
	case statusOK:
		s.report.OK++
	case statusWarning:
		s.report.Warnings++
	case statusProblem:
		s.report.Problems++
		if f.code == 0 {
			f.code = exitFailure
		}
	}
	s.report.Findings = append(s.report.Findings, f)
}

func (s section) ok(name, format string, args ...any) {
	s.add(finding{Name: name, Status: statusOK, Detail: fmt.Sprintf(format, args...)})
}

func (s section) warn(name, hint, format string, args ...any) {
	s.add(finding{Name: name, Status: statusWarning, Hint: hint, Detail: fmt.Sprintf(format, args...)})
}

func (s section) problem(name, hint, format string, args ...any) {
	s.add(finding{Name: name, Status: statusProblem, Hint: hint, Detail: fmt.Sprintf(format, args...)})
}

// failed adds a problem that came as an error.
func (s section) failed(name string, err error) {
	f := describe(err)
	s.add(finding{Name: name, Status: statusProblem, Detail: f.Message, Hint: f.Hint, code: f.Code})
}

// code is the exit code of all problems together: the one that, put right, most
// likely clears others away.
func (r *doctorReport) code() int {
	for _, code := range []int{exitUnreachable, exitDenied, exitDamage, exitFailure} {
		for _, f := range r.Findings {
			if f.code == code {
				return code
			}
		}
	}
	return exitOK
}

type doctorCommand struct {
	app    *app
	keys   keySettings
	role   string
	asJSON bool
}

func newDoctor(a *app) *cobra.Command {
	d := &doctorCommand{app: a}
	cmd := &cobra.Command{
		Use:     "doctor [flags] [DIR]",
		Short:   "find out what stands in the way of a mount",
		Long:    doctorLong,
		Example: doctorExample,
		Args:    atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.keys.check(cmd); err != nil {
				return err
			}
			return d.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&d.asJSON, "json", false, "print JSON")
	addRoleFlag(flags, &d.role)
	flags.StringVar(&d.keys.TransitKey, "transit-key", "", "name of the Transit `KEY` (default: that of DIR)")
	flags.StringVar(&d.keys.TransitMount, "transit-mount", "", "`PATH` of the Transit secrets engine (default: that of DIR, else transit)")
	d.keys.addVaultFlags(flags)
	return cmd
}

func (d *doctorCommand) run(ctx context.Context, args []string) error {
	report := &doctorReport{}
	newSystem("/").examine(section{"system", report})
	var cfg *volume.Config
	if len(args) > 0 {
		cfg = d.examineVolume(section{"volume", report}, args[0])
	}
	if ref, ok := d.transitKey(cfg, len(args) > 0); ok {
		v := vaultExamination{section: section{"vault", report}, ref: ref, role: vault.Role(d.role), volume: cfg}
		v.examine(ctx, d.keys.vaultOptions(ref))
	}
	if err := d.print(report); err != nil || report.Problems == 0 {
		return err
	}
	return &failure{Message: counted(report.Problems, "problem") + " found", Code: report.code()}
}

// transitKey tells whether Vault is to be looked at, and for which key. Its name
// is empty if there is none to look at.
func (d *doctorCommand) transitKey(cfg *volume.Config, hasDir bool) (volume.VaultRef, bool) {
	if cfg != nil && cfg.Keyring.Vault != nil {
		return *cfg.Keyring.Vault, true
	}
	ref := volume.VaultRef{Mount: d.keys.TransitMount, Key: d.keys.TransitKey}
	if ref.Mount = strings.Trim(ref.Mount, "/"); ref.Mount == "" {
		ref.Mount = "transit"
	}
	_, hasAddr := d.app.env("VAULT_ADDR")
	_, hasAgent := d.app.env("VAULT_AGENT_ADDR")
	return ref, ref.Key != "" || !hasDir && (hasAddr || hasAgent || d.keys.VaultAddr != "")
}

func (d *doctorCommand) print(report *doctorReport) error {
	if d.asJSON {
		return writeJSON(d.app, report)
	}
	_, noColour := d.app.env("NO_COLOR")
	f, isFile := d.app.stdout.(*os.File)
	return report.write(d.app.stdout, !noColour && isFile && term.IsTerminal(int(f.Fd())))
}
