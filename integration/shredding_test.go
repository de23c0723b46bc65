package integration

import "testing"

// TestShredding: what was wrapped by a key version that is trimmed, or by a key that is deleted, is lost for good, copies
// included, and only that.
func TestShredding(t *testing.T) {
	r, s := newVaultRig(t, nil)
	r.mount()
	r.write(r.path("letter"), "Dear reader")
	r.umount()
	backup := r.below("backup")
	run(t, nil, r.base, "cp", "-a", r.dir, backup).ok()
	s.RotateKey("docs")
	r.login(s, s.RootToken)
	r.envfs("rewrap", r.dir).ok()
	r.envfs("info", "--require-version", "2", r.dir).ok()

	s.ConfigureKey("docs", map[string]any{"min_decryption_version": 2, "min_encryption_version": 2})
	s.Write("transit/keys/docs/trim", map[string]any{"min_available_version": 2})
	r.envfs("mount", backup, r.mnt).fails(3, `^envfs: .*key revoked`)
	if _, err := s.Root.Logical().Write("transit/keys/docs/config", map[string]any{"min_decryption_version": 1}); err == nil {
		t.Error("a version that was trimmed can be had again")
	}
	r.mount()
	if got := r.read(r.path("letter")); got != "Dear reader" {
		t.Errorf("the volume itself, which was rewrapped before: %q", got)
	}
	r.umount()

	s.DeleteKey("docs")
	for _, dir := range []string{r.dir, backup} {
		r.envfs("mount", dir, r.mnt).fails(1, `^envfs: .*there is no key "docs"`)
	}
	s.CreateKey("docs", nil) // of the same name and as many versions, which does not help
	s.RotateKey("docs")
	for _, dir := range []string{r.dir, backup} {
		r.envfs("mount", dir, r.mnt).fails(5, `^envfs: .*wrapped key cannot be authenticated`)
	}
}
