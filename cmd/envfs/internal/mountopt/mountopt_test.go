package mountopt

import (
	"errors"
	"reflect"
	"testing"
)

func isSetting(name string) bool {
	return name == "idle" || name == "passphrase-file" || name == "transit-key"
}

func TestParse(t *testing.T) {
	tests := []struct {
		text string
		want Options
	}{
		{"", Options{}},
		{"defaults", Options{}},
		{"lazytime,nolazytime", Options{}},
		{"rw,suid,dev,exec,auto,nouser,async", Options{Suid: true, Dev: true}},
		{"ro", Options{ReadOnly: true}},
		{"ro,rw", Options{}},
		{"rw,ro", Options{ReadOnly: true}},
		{"allow_other,nonempty", Options{AllowOther: true, NonEmpty: true}},
		{"noatime", Options{NoAtime: true}},
		{"nodiratime", Options{NoDirAtime: true}},
		{"nodiratime,diratime", Options{}},
		{"noatime,relatime", Options{}},
		{"noatime,strictatime", Options{}},
		{"dev,nodev,suid,nosuid", Options{}},
		{"noexec,exec", Options{}},
		{"noexec", Options{NoExec: true}},
		{"debug", Options{Debug: true}},
		{"_netdev,nofail,x-systemd.automount,x-systemd.idle-timeout=5min,X-mount.mkdir,comment=a b,user=ann", Options{}},
		{"sync,dirsync", Options{Kernel: []string{"sync", "dirsync"}}},
		{`context="system_u:object_r:tmp_t:s0:c127,c456",ro`,
			Options{ReadOnly: true, Kernel: []string{"context=system_u:object_r:tmp_t:s0:c127,c456"}}},
		{"idle=30m,transit-key=docs", Options{Settings: []Setting{{"idle", "30m"}, {"transit-key", "docs"}}}},
		{`passphrase-file=/a\,b\\c`, Options{Settings: []Setting{{"passphrase-file", `/a,b\c`}}}},
		{"passphrase-file=/k=v", Options{Settings: []Setting{{"passphrase-file", "/k=v"}}}},
		{"passphrase-file=", Options{Settings: []Setting{{"passphrase-file", ""}}}},
		{",,ro,", Options{ReadOnly: true}},
	}
	for _, test := range tests {
		var got Options
		if err := got.Parse(test.text, isSetting); err != nil {
			t.Errorf("Parse(%q): %v", test.text, err)
			continue
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("Parse(%q) = %+v, want %+v", test.text, got, test.want)
		}
	}
}

func TestParseAdds(t *testing.T) {
	var o Options
	for _, text := range []string{"ro,noatime", "allow_other,rw"} {
		if err := o.Parse(text, isSetting); err != nil {
			t.Fatal(err)
		}
	}
	if want := (Options{NoAtime: true, AllowOther: true}); !reflect.DeepEqual(o, want) {
		t.Errorf("two strings give %+v, want %+v", o, want)
	}
}

func TestSloppy(t *testing.T) {
	o := Options{Sloppy: true}
	if err := o.Parse("frobnicate,uid=1000,ro", isSetting); err != nil || !o.ReadOnly {
		t.Errorf("sloppy parsing gives %+v, %v", o, err)
	}
	if err := o.Parse("ro=yes", isSetting); err == nil {
		t.Error("a value where none belongs is ignored")
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ text, option, reason string }{
		{"ro,frobnicate", "frobnicate", "not known"},
		{"uid=1000", "uid", "not known"},
		{"Ro", "Ro", "not known"},
		{" ro", " ro", "not known"},
		{"xattr", "xattr", "not known"},
		{"ro=yes", "ro", "takes no value"},
		{"sync=1", "sync", "takes no value"},
		{"idle", "idle", "needs a value, as in idle=…"},
		{"remount,ro", "remount", "not supported: unmount and mount again"},
		{`passphrase-file="/a`, "passphrase-file", "ends inside a quote or after a backslash"},
		{`ro\`, "ro", "ends inside a quote or after a backslash"},
	}
	for _, test := range tests {
		var o Options
		err := o.Parse(test.text, isSetting)
		var bad *Error
		if !errors.As(err, &bad) {
			t.Errorf("Parse(%q) = %v, want an *Error", test.text, err)
			continue
		}
		if bad.Option != test.option || bad.Reason != test.reason {
			t.Errorf("Parse(%q) = %q %q, want %q %q", test.text, bad.Option, bad.Reason, test.option, test.reason)
		}
	}
}

// A password in an unknown option must not be repeated in a message.
func TestErrorLeavesOutValues(t *testing.T) {
	var o Options
	err := o.Parse("password=hunter2", isSetting)
	if err == nil || err.Error() != `mount option "password": not known` {
		t.Errorf("message is %v", err)
	}
}
