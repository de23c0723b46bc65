package integration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"testing"
)

// field returns the value of a field of envfs.json that is a string.
func field(t *testing.T, config, name string) string {
	t.Helper()
	found := regexp.MustCompile(`"` + name + `": "([^"]*)"`).FindStringSubmatch(config)
	if found == nil {
		t.Fatalf("no %s in %s", name, config)
	}
	return found[1]
}

// withChecksum gives a changed envfs.json a right checksum, as anybody can: that of its canonical form without the field.
func withChecksum(t *testing.T, config string) string {
	t.Helper()
	var canonical bytes.Buffer
	if err := json.Compact(&canonical, []byte(config)); err != nil {
		t.Fatal(err)
	}
	old := field(t, config, "checksum")
	without, found := bytes.CutSuffix(canonical.Bytes(), []byte(`,"checksum":"`+old+`"}`))
	if !found {
		t.Fatalf("the checksum does not come last: %s", &canonical)
	}
	sum := sha256.Sum256(append(bytes.Clone(without), '}'))
	return string(bytes.Replace([]byte(config), []byte(old), []byte(hex.EncodeToString(sum[:])), 1))
}
