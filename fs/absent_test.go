package fs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestAbsentAttributesAreRemembered: what was not there is not asked for again below, until an attribute is set.
func TestAbsentAttributesAreRemembered(t *testing.T) {
	r := newRig(t, Options{})
	r.write("f", nil)
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	buf := make([]byte, 256)
	want := func(when, attr, value string, err error) {
		t.Helper()
		n, got := unix.Lgetxattr(r.path("f"), attr, buf)
		if got != err || string(buf[:max(n, 0)]) != value {
			t.Errorf("%s: %s is %q, %v; want %q, %v", when, attr, buf[:max(n, 0)], got, value, err)
		}
	}
	const aclAccess, label = "system.posix_acl_access", "security.selinux"
	r.server.selinux.Store(true)
	want("at first", aclAccess, "", unix.ENODATA)
	want("at first", label, "", unix.ENODATA)
	if err := unix.Lsetxattr(r.stored("f"), aclAccess, acl, 0); err != nil {
		t.Fatal(err)
	}
	want("set behind the mount", aclAccess, "", unix.ENODATA)
	if err := unix.Lsetxattr(r.path("f"), label, []byte("label"), 0); err != nil {
		t.Fatal(err)
	}
	want("set through the mount", label, "label", nil)
	want("after something was set", aclAccess, string(acl), nil)
	if err := unix.Lremovexattr(r.path("f"), label); err != nil {
		t.Fatal(err)
	}
	want("removed", label, "", unix.ENODATA)
	if err := unix.Lsetxattr(r.path("f"), label, []byte("again"), 0); err != nil {
		t.Fatal(err)
	}
	want("set again", label, "again", nil)
}

// TestLabelsWithoutSELinux: where the kernel has no SELinux, a label that a file does not have is not supported, and one that it
// has is shown.
func TestLabelsWithoutSELinux(t *testing.T) {
	r := newRig(t, Options{})
	r.server.selinux.Store(false)
	r.write("f", nil)
	const label = "security.selinux"
	buf := make([]byte, 256)
	for range 2 { // looked up, remembered
		if _, err := unix.Lgetxattr(r.path("f"), label, buf); err != unix.EOPNOTSUPP {
			t.Errorf("a label that is not there: %v, want EOPNOTSUPP", err)
		}
	}
	if _, err := unix.Lgetxattr(r.path("f"), "security.other", buf); err != unix.ENODATA {
		t.Errorf("another attribute that is not there: %v, want ENODATA", err)
	}
	if err := unix.Lsetxattr(r.path("f"), label, []byte("label"), 0); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Lgetxattr(r.path("f"), label, buf); err != nil || string(buf[:n]) != "label" {
		t.Errorf("a label that was stored is %q, %v", buf[:max(n, 0)], err)
	}
}

// TestAbsenceSeenTooEarly: an answer that was under way while the attribute was set is not remembered.
func TestAbsenceSeenTooEarly(t *testing.T) {
	var a absentAttrs
	seen, _ := a.look(capabilityAttr)
	a.changed()
	a.note(seen, capabilityAttr)
	if _, absent := a.look(capabilityAttr); absent {
		t.Error("an attribute that was set meanwhile is taken for absent")
	}
	seen, _ = a.look(capabilityAttr)
	a.note(seen, capabilityAttr)
	if _, absent := a.look(capabilityAttr); !absent {
		t.Error("an absent attribute is not remembered")
	}
	if _, absent := a.look(aclDefault); absent {
		t.Error("another attribute is taken for absent")
	}
}
