package integration

import (
	"encoding/json"
	"slices"
)

// verified is what envfs verify says of a volume.
type verified struct {
	Damage, Unchecked, Notices int
	Files                      int
	Findings                   []struct {
		Class, Kind, Path, Reason string
		Plaintext                 string `json:"plaintext_path"`
	}
}

// verify verifies a volume, whatever comes of it.
func (r *rig) verify(dir string) (v verified) {
	r.t.Helper()
	out := r.envfs("verify", "--json", "--passphrase-file", r.pass, dir)
	if err := json.Unmarshal([]byte(out.stdout), &v); err != nil {
		r.t.Fatalf("%s: %v: %q\n%s", out.line, err, out.stdout, out.stderr)
	}
	if (out.code == 5) != (v.Damage > 0) || (out.code == 0) != (v.Damage+v.Unchecked == 0) {
		r.t.Errorf("%s: exit code %d for %+v", out.line, out.code, v)
	}
	return v
}

// whole demands that a volume is whole and sealed: not even a notice.
func (r *rig) whole(dir string) {
	r.t.Helper()
	if v := r.verify(dir); len(v.Findings) > 0 || v.Files == 0 {
		r.t.Errorf("%s: %d files, %+v", dir, v.Files, v.Findings[:min(len(v.Findings), 8)])
	}
}

// kinds lists the findings of a class by kind.
func (v verified) kinds(class string) (kinds []string) {
	for _, f := range v.Findings {
		if f.Class == class {
			kinds = append(kinds, f.Kind)
		}
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
