// Package mountopt reads the comma-separated option string of mount(8), as
// given by "-o" and by the fourth field of fstab.
//
// It sits below the mount command and knows nothing of it: options that only
// concern the file system become fields of Options, options that are also
// long flags of the command are handed back by name, and anything else is an
// error that names the option. A backslash takes the next character as it is
// and double quotes protect commas, so that a path may contain either.
package mountopt

import (
	"fmt"
	"strings"
)

// Options is what one or more option strings say. Its zero value is a mount
// as envfs makes it when nothing is said: read-write, without device nodes
// and set-user-ID programs.
type Options struct {
	Sloppy bool // set before Parse: options that are not known are no error

	ReadOnly   bool // ro
	AllowOther bool // allow_other: every user, with the kernel's permission checks
	NonEmpty   bool // nonempty: mount over a directory that has entries
	NoAtime    bool // noatime
	NoDirAtime bool // nodiratime
	Dev        bool // dev: device nodes work
	Suid       bool // suid: set-user-ID and set-group-ID bits work
	NoExec     bool // noexec
	Debug      bool // debug: log each request
	FastOpen   bool // fastopen: the kernel opens and closes files without asking

	AuditSyslog   bool // audit-syslog: the long flag of that name
	AuditRequired bool // audit-required: likewise

	Kernel   []string  // handed to the kernel as they are, in order
	Settings []Setting // options that are also long flags, in order
}

// Setting is an option that is also a long flag: "idle=30m" is --idle 30m.
type Setting struct{ Name, Value string }

// Error says which option of a string cannot be used and why.
type Error struct {
	Option string // as it was written, without its value
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("mount option %q: %s", e.Option, e.Reason) }

// Parse adds the options in text to o. isSetting tells which names are long
// flags of the command. On an error, which is an *Error, o holds the options
// before the bad one.
func (o *Options) Parse(text string, isSetting func(name string) bool) error {
	items, err := split(text)
	if err != nil {
		return err
	}
	for _, item := range items {
		name, value, hasValue := strings.Cut(item, "=")
		if err := o.add(name, value, hasValue, item, isSetting); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) add(name, value string, hasValue bool, item string, isSetting func(string) bool) error {
	if isSetting(name) {
		if !hasValue {
			return &Error{Option: name, Reason: "needs a value, as in " + name + "=…"}
		}
		o.Settings = append(o.Settings, Setting{Name: name, Value: value})
		return nil
	}
	if forOthers(name) {
		return nil
	}
	if isLabel(name) {
		o.Kernel = append(o.Kernel, item)
		return nil
	}
	if name == "remount" {
		return &Error{Option: name, Reason: "not supported: unmount and mount again"}
	}
	kernel := isKernelFlag(name)
	if !kernel && !isDefault(name) && !o.setSwitch(name) {
		if o.Sloppy {
			return nil
		}
		return &Error{Option: name, Reason: "not known"}
	}
	if hasValue {
		return &Error{Option: name, Reason: "takes no value"}
	}
	if kernel {
		o.Kernel = append(o.Kernel, name)
	}
	return nil
}

// setSwitch applies an option that sets a field and tells whether it was one.
// The last of two opposite options wins, as in mount(8).
func (o *Options) setSwitch(name string) bool {
	switch name {
	case "ro":
		o.ReadOnly = true
	case "rw":
		o.ReadOnly = false
	case "allow_other":
		o.AllowOther = true
	case "nonempty":
		o.NonEmpty = true
	case "noatime":
		o.NoAtime = true
	case "atime", "relatime", "strictatime":
		o.NoAtime = false
	case "nodiratime":
		o.NoDirAtime = true
	case "diratime":
		o.NoDirAtime = false
	case "dev":
		o.Dev = true
	case "nodev":
		o.Dev = false
	case "suid":
		o.Suid = true
	case "nosuid":
		o.Suid = false
	case "exec":
		o.NoExec = false
	case "noexec":
		o.NoExec = true
	case "debug":
		o.Debug = true
	case "fastopen":
		o.FastOpen = true
	case "audit-syslog":
		o.AuditSyslog = true
	case "audit-required":
		o.AuditRequired = true
	default:
		return false
	}
	return true
}

// isDefault tells options that describe what happens anyway.
func isDefault(name string) bool {
	switch name {
	case "defaults", "async", "norelatime", "nostrictatime", "lazytime", "nolazytime",
		"loud", "silent", "nomand", "noiversion", "default_permissions":
		return true
	}
	return false
}

// isKernelFlag tells options that the kernel itself carries out for any file
// system.
func isKernelFlag(name string) bool {
	switch name {
	case "sync", "dirsync":
		return true
	}
	return false
}

// isLabel tells the security label options, whose value goes to the kernel.
func isLabel(name string) bool {
	switch name {
	case "context", "fscontext", "defcontext", "rootcontext":
		return true
	}
	return false
}

// forOthers tells options of fstab that speak to mount(8), systemd and other
// programs, never to a file system.
func forOthers(name string) bool {
	switch name {
	case "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner",
		"group", "nogroup", "_netdev", "nofail", "comment", "":
		return true
	}
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-")
}

// split cuts text at commas that are neither escaped nor quoted.
func split(text string) ([]string, error) {
	var items []string
	var item strings.Builder
	quoted, escaped := false, false
	for _, c := range []byte(text) { // not by runes: a path need not be UTF-8
		switch {
		case escaped:
			item.WriteByte(c)
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			items = append(items, item.String())
			item.Reset()
		default:
			item.WriteByte(c)
		}
	}
	if quoted || escaped {
		name, _, _ := strings.Cut(item.String(), "=")
		return nil, &Error{Option: name, Reason: "ends inside a quote or after a backslash"}
	}
	return append(items, item.String()), nil
}
