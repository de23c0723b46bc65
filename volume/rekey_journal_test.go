package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/envfs/envfs/crypto"
)

// FuzzRekeyJournal opens journals that a crash or an editor has left, and expects that what is added can be read again.
func FuzzRekeyJournal(f *testing.F) {
	v := &Volume{cfg: &Config{VolumeID: crypto.ID{1}}}
	title := journalTitle + v.cfg.VolumeID.String()
	f.Add("")
	f.Add(title + "\n")
	f.Add(title + "\n" + crypto.ID{2}.String() + "\n" + crypto.ID{3}.String()[:7])
	f.Add(title)
	f.Add("another file")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := v.OpenRekeyJournal(path)
		if err != nil {
			if after, rerr := os.ReadFile(path); rerr != nil || string(after) != text {
				t.Errorf("%q was refused (%v) and changed to %q", text, err, after)
			}
			return
		}
		before := len(j.done)
		id := crypto.ID{0xfe, 0xdc}
		known := j.has(id)
		if err := j.note(id); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := v.OpenRekeyJournal(path)
		if err != nil {
			t.Fatalf("%q, continued: %v", text, err)
		}
		if !again.has(id) || !known && len(again.done) != before+1 {
			after, _ := os.ReadFile(path)
			t.Errorf("%q became %q, of which %d are read instead of %d", text, after, len(again.done), before+1)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if text != "" && !strings.HasPrefix(text, title) {
			t.Errorf("%q was accepted", text)
		}
	})
}
