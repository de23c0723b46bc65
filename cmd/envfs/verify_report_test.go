package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/envfs/envfs/cmd/envfs/internal/progress"
	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/keyring"
	"github.com/envfs/envfs/volume"
)

func newFindings(found ...volume.Finding) (*findingList, *bytes.Buffer) {
	var out bytes.Buffer
	l := &findingList{
		meter:  progress.New(&out, progress.Options{Number: number}),
		report: verifyReport{Volume: "/data", Findings: []verifyFinding{}, Moved: []verifyMove{}},
	}
	for _, f := range found {
		l.add(f)
		switch f.Class {
		case volume.ClassDamage:
			l.report.Damage++
		case volume.ClassUnchecked:
			l.report.Unchecked++
		}
	}
	return l, &out
}

func TestVerifyExitCodes(t *testing.T) {
	notice := volume.Finding{Class: volume.ClassNotice, Kind: volume.KindUnsealed}
	damage := volume.Finding{Class: volume.ClassDamage, Kind: volume.KindBlock, Err: crypto.ErrChecksum}
	unchecked := func(err error) volume.Finding { return volume.Finding{Class: volume.ClassUnchecked, Err: err} }
	for _, c := range []struct {
		found []volume.Finding
		want  int
	}{
		{nil, exitOK},
		{[]volume.Finding{notice, notice}, exitOK},
		{[]volume.Finding{notice, damage}, exitDamage},
		{[]volume.Finding{unchecked(fs.ErrPermission)}, exitFailure},
		{[]volume.Finding{unchecked(crypto.ErrNewerVersion)}, exitFailure},
		{[]volume.Finding{unchecked(crypto.ErrUnsupported)}, exitFailure},
		{[]volume.Finding{unchecked(fs.ErrPermission), unchecked(keyring.ErrRevoked)}, exitDenied},
		{[]volume.Finding{unchecked(keyring.ErrUnreachable)}, exitUnreachable},
		{[]volume.Finding{unchecked(keyring.ErrRevoked), damage, unchecked(fs.ErrPermission)}, exitDamage},
	} {
		l, _ := newFindings(c.found...)
		if got := exitCode(l.err()); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.found, got, c.want)
		}
		for _, f := range l.report.Findings {
			if len(c.found) == 1 && f.Code != c.want {
				t.Errorf("%v: code %d, want %d", f, f.Code, c.want)
			}
		}
	}
	l, _ := newFindings(damage)
	if got := exitCode(errors.Join(l.err(), keyring.ErrUnreachable)); got != exitDamage {
		t.Errorf("damage, and then the key service went away: exit code %d", got)
	}
}

func TestVerifyLines(t *testing.T) {
	first := int64(3)
	id := crypto.ID{0xab}
	l, out := newFindings(
		volume.Finding{Class: volume.ClassDamage, Path: "Zk3", Plaintext: "letter", FileID: id, Block: &first, Blocks: 1, Reason: "zeroed"},
		volume.Finding{Class: volume.ClassDamage, Path: "Zk3", Plaintext: "letter", FileID: id, Block: &first, Blocks: 7, Reason: "zeroed"},
		volume.Finding{Class: volume.ClassDamage, Path: "Zk3", Plaintext: "a\nb", Attribute: "user.x", Reason: "forged"},
		volume.Finding{Class: volume.ClassNotice, Path: "Zk3", Plaintext: "letter", Resealed: true, Reason: "unsealed"},
	)
	l.moved("Zk3", "/bad/Zk3")
	want := `envfs: damage: /data/Zk3: block 3: zeroed (letter, file ID ab000000000000000000000000000000)
envfs: damage: /data/Zk3: blocks 3 to 9: zeroed (letter, file ID ab000000000000000000000000000000)
envfs: damage: /data/Zk3: attribute user.x: forged ("a\nb")
envfs: notice: /data/Zk3: unsealed (letter); now it is sealed
envfs: /data/Zk3: moved to /bad/Zk3
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out, want)
	}
	raw, err := json.Marshal(l.report)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`{"class":"damage","kind":"","path":"/data/Zk3","plaintext_path":"letter","file_id":"ab000000000000000000000000000000","block":3,"blocks":7,"reason":"zeroed","code":5}`,
		`{"class":"damage","kind":"","path":"/data/Zk3","plaintext_path":"a\nb","attribute":"user.x","reason":"forged","code":5}`,
		`"resealed":true,"code":0}`, `"moved":[{"path":"/data/Zk3","to":"/bad/Zk3"}]`,
	} {
		if !strings.Contains(string(raw), part) {
			t.Errorf("%s is not in %s", part, raw)
		}
	}
}
