package crypto

import (
	"errors"
	"strings"
	"testing"
)

func TestStoredName(t *testing.T) {
	for _, length := range []int{1, 22, 254, 255} {
		encoded := strings.Repeat("A", length)
		if stored, long := StoredName(encoded); stored != encoded || long {
			t.Errorf("%d bytes: stored as %q, long %v", length, stored, long)
		}
		if IsLong(encoded) || IsSidecar(encoded) || SidecarName(encoded) != "" {
			t.Errorf("%d bytes: taken for a long name", length)
		}
	}
	for _, length := range []int{256, MaxEncodedName} {
		encoded := strings.Repeat("A", length)
		stored, long := StoredName(encoded)
		if !long || !IsLong(stored) || len(stored) > MaxStoredName {
			t.Fatalf("%d bytes: stored as %q, long %v", length, stored, long)
		}
		sidecar := SidecarName(stored)
		if !IsSidecar(sidecar) || IsLong(sidecar) || IsSidecar(stored) || LongOfSidecar(sidecar) != stored {
			t.Errorf("%d bytes: sidecar %q of %q", length, sidecar, stored)
		}
		if !IsReserved(stored) || !IsReserved(sidecar) {
			t.Errorf("%q and %q are not reserved", stored, sidecar)
		}
		if err := CheckLong(stored, encoded); err != nil {
			t.Error(err)
		}
	}
	// printf %0256d | tr 0 A | sha256sum, in base64url
	const want = "envfs.long.4HXy9RytI9BTcYbPzVD5EeqVT5wuMqQ39FMn8beJm7s"
	if stored, _ := StoredName(strings.Repeat("A", 256)); stored != want {
		t.Errorf("stored as %q, want %q", stored, want)
	}
}

func TestCheckLongRefuses(t *testing.T) {
	encoded := strings.Repeat("A", 256)
	stored, _ := StoredName(encoded)
	for _, v := range []struct{ name, stored, encoded string }{
		{"empty", stored, ""},
		{"other name", stored, strings.Repeat("A", 255) + "B"},
		{"longer", stored, encoded + "A"},
		{"with a newline", stored, encoded + "\n"},
		{"cut off", stored, encoded[:255]},
		{"short name under its hash", longPrefix + hashText("AAAA"), "AAAA"},
		{"short name as itself", "AAAA", "AAAA"},
		{"beyond the longest", longPrefix + hashText(strings.Repeat("A", MaxEncodedName+1)), strings.Repeat("A", MaxEncodedName+1)},
		{"sidecar for long", SidecarName(stored), encoded},
	} {
		if err := CheckLong(v.stored, v.encoded); !errors.Is(err, ErrLongName) {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

func TestReservedNames(t *testing.T) {
	hash := hashText("")
	for _, v := range []struct {
		name                    string
		long, sidecar, reserved bool
	}{
		{longPrefix + hash, true, false, true},
		{sidecarPrefix + hash, false, true, true},
		{longPrefix, false, false, true},
		{longPrefix + hash[1:], false, false, true},
		{longPrefix + hash + "A", false, false, true},
		{longPrefix + hash[:42] + "\n", false, false, true},
		{longPrefix + hash[:42] + "=", false, false, true},
		{longPrefix + hash[:42] + "9", false, false, true}, // the unused low bits are not zero
		{"envfs.json", false, false, true},
		{"envfs.", false, false, true},
		{"envfs", false, false, false},
		{"ENVFS.json", false, false, false},
		{"", false, false, false},
	} {
		if IsLong(v.name) != v.long || IsSidecar(v.name) != v.sidecar || IsReserved(v.name) != v.reserved {
			t.Errorf("%q: long %v, sidecar %v, reserved %v", v.name, IsLong(v.name), IsSidecar(v.name), IsReserved(v.name))
		}
		if (LongOfSidecar(v.name) != "") != v.sidecar || (SidecarName(v.name) != "") != v.long {
			t.Errorf("%q: belongs to %q, has %q", v.name, LongOfSidecar(v.name), SidecarName(v.name))
		}
	}
}
