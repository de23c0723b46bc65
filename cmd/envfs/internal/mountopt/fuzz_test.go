package mountopt

import (
	"errors"
	"strings"
	"testing"
)

// escape writes a value so that Parse reads it as it is.
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `,`, `\,`).Replace(value)
}

func FuzzParse(f *testing.F) {
	f.Add("ro,allow_other,idle=30m", "30m")
	f.Add(`passphrase-file="/a,b",nofail,x-systemd.automount`, "/path with , and \"")
	f.Add(`context=system_u:object_r:tmp_t:s0`, `back\slash`)
	f.Add(`a\`, "\xff\xfe")
	f.Add(`"open`, "")
	f.Fuzz(func(t *testing.T, text, value string) {
		isSetting := func(name string) bool { return name == "idle" || name == "passphrase-file" }
		var o Options
		if err := o.Parse(text, isSetting); err != nil {
			var bad *Error
			if !errors.As(err, &bad) {
				t.Errorf("%q: untyped error %v", text, err)
			}
		}
		for _, s := range o.Settings {
			if !isSetting(s.Name) {
				t.Errorf("%q sets %q, which cannot be set", text, s.Name)
			}
		}
		o = Options{}
		if err := o.Parse("ro,passphrase-file="+escape(value)+",nodev", isSetting); err != nil {
			t.Fatalf("%q: %v", value, err)
		}
		if len(o.Settings) != 1 || o.Settings[0].Value != value || !o.ReadOnly {
			t.Errorf("%q is read as %+v", value, o)
		}
	})
}
