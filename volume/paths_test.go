package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
)

func TestPathsRoundTrip(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{})
	for _, test := range []struct{ rel, clean string }{
		{"", "."},
		{".", "."},
		{"./", "."},
		{"a", "a"},
		{"a/b/c", "a/b/c"},
		{"./a//b/./c/", "a/b/c"},
		{"envfs.json", "envfs.json"},
		{"...", "..."},
		{"a b/\xff\n/ü", "a b/\xff\n/ü"},
		{strings.Repeat("x", 175), strings.Repeat("x", 175)}, // the longest stored under its own name
	} {
		stored, err := v.EncryptPath(test.rel)
		if err != nil {
			t.Errorf("%q: %v", test.rel, err)
			continue
		}
		if strings.Count(stored, "/") != strings.Count(test.clean, "/") {
			t.Errorf("%q is stored as %q", test.rel, stored)
		}
		for name := range strings.SplitSeq(stored, "/") {
			if test.clean != "." && strings.Contains("/"+test.clean+"/", "/"+name+"/") {
				t.Errorf("%q is stored as %q", test.rel, stored)
			}
		}
		if got, err := v.DecryptPath(stored); err != nil || got != test.clean {
			t.Errorf("%q is stored as %q and read as %q, %v", test.rel, stored, got, err)
		}
		if got, err := v.DecryptPath("./" + stored + "/"); err != nil || got != test.clean {
			t.Errorf("%q with slashes is read as %q, %v", stored, got, err)
		}
	}
}

func TestPathsRefused(t *testing.T) {
	kr := newTestKeyring()
	encryptedDir, _ := initVolume(t, kr, InitOptions{})
	plaintextDir, _ := initVolume(t, kr, InitOptions{PlaintextNames: true})
	encrypted := mustOpen(t, encryptedDir, kr, OpenOptions{})
	plaintext := mustOpen(t, plaintextDir, kr, OpenOptions{})
	missing, err := encrypted.EncryptPath("missing")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		translate func(string) (string, error)
		rel       string
		class     error
	}{
		{"absolute", encrypted.EncryptPath, "/a", ErrBadPath},
		{"absolute", encrypted.DecryptPath, "/a", ErrBadPath},
		{"parent", encrypted.EncryptPath, "..", ErrBadPath},
		{"parent below", encrypted.EncryptPath, "a/../b", ErrBadPath},
		{"parent", encrypted.DecryptPath, "../" + ConfigName, ErrBadPath},
		{"parent", plaintext.DecryptPath, "a/..", ErrBadPath},
		{"NUL", encrypted.EncryptPath, "a\x00b", ErrBadPath},
		{"NUL", plaintext.DecryptPath, "a\x00b", ErrBadPath},
		{"256 bytes", encrypted.EncryptPath, "a/" + strings.Repeat("x", 256), unix.ENAMETOOLONG},
		{"256 bytes", plaintext.EncryptPath, strings.Repeat("x", 256), unix.ENAMETOOLONG},
		{"config", encrypted.DecryptPath, ConfigName, ErrReservedName},
		{"sidecar", encrypted.DecryptPath, "envfs.name." + strings.Repeat("A", 43), ErrReservedName},
		{"foreign", encrypted.DecryptPath, "lost+found", crypto.ErrForeignName},
		{"foreign", encrypted.DecryptPath, strings.Repeat("A", 43), crypto.ErrForeignName},
		{"config", plaintext.EncryptPath, ConfigName, ErrReservedName},
		{"reserved below", plaintext.EncryptPath, "a/envfs.x/b", ErrReservedName},
		{"reserved", plaintext.DecryptPath, "envfs.", ErrReservedName},
		{"no long names here", plaintext.DecryptPath, "envfs.long." + strings.Repeat("A", 43), ErrReservedName},
		{"long in no directory", encrypted.DecryptPath, missing + "/envfs.long." + strings.Repeat("A", 43), os.ErrNotExist},
	} {
		if got, err := test.translate(test.rel); got != "" || !errors.Is(err, test.class) {
			t.Errorf("%s: %q gives %q, %v; want %v", test.name, test.rel, got, err, test.class)
		}
	}
	for _, rel := range []string{"a", "a/envfs", "a/.envfs.json", strings.Repeat("x", 255)} {
		for _, translate := range []func(string) (string, error){plaintext.EncryptPath, plaintext.DecryptPath} {
			if got, err := translate(rel); err != nil || got != rel {
				t.Errorf("with plaintext names %q gives %q, %v", rel, got, err)
			}
		}
	}
}

// longDir makes a directory and in it a sidecar, both for names of 255 bytes,
// and returns the path of a file with a long name in it.
func longDir(t *testing.T, v *Volume) (plain, stored, sidecar string) {
	t.Helper()
	plain = strings.Repeat("d", 176) + "/" + strings.Repeat("f", 255)
	stored, err := v.EncryptPath(plain)
	if err != nil {
		t.Fatal(err)
	}
	upper, lower, _ := strings.Cut(stored, "/")
	if !crypto.IsLong(upper) || !crypto.IsLong(lower) {
		t.Fatalf("%q is stored as %q", plain, stored)
	}
	if err := os.Mkdir(filepath.Join(v.dir, upper), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(v.dir, crypto.SidecarName(upper)), v.names.Encrypt(strings.Repeat("d", 176)))
	sidecar = filepath.Join(v.dir, upper, crypto.SidecarName(lower))
	writeFile(t, sidecar, v.names.Encrypt(strings.Repeat("f", 255)))
	return plain, stored, sidecar
}

func TestLongPaths(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{})
	plain, stored, sidecar := longDir(t, v)
	if got, err := v.DecryptPath(stored); err != nil || got != plain {
		t.Errorf("%q is read as %q, %v", stored, got, err)
	}
	upper, lower, _ := strings.Cut(plain, "/")
	_, storedLower, _ := strings.Cut(stored, "/")
	if got, err := v.DecryptPath(stored[:strings.Index(stored, "/")]); err != nil || got != upper {
		t.Errorf("the directory is read as %q, %v", got, err)
	}
	for name, lose := range map[string]func() error{
		"cut short": func() error { return os.Truncate(sidecar, 300) },
		"huge":      func() error { return os.Truncate(sidecar, 1<<40) },
		"another":   func() error { return os.WriteFile(sidecar, []byte(v.names.Encrypt(lower+"x")), 0o600) },
		"missing":   func() error { return os.Remove(sidecar) },
		"link":      func() error { return os.Symlink("/etc/hostname", sidecar) },
		"fifo":      func() error { return errors.Join(os.Remove(sidecar), unix.Mkfifo(sidecar, 0o600)) },
	} {
		if err := os.RemoveAll(sidecar); err != nil {
			t.Fatal(err)
		}
		if name != "link" {
			writeFile(t, sidecar, v.names.Encrypt(lower))
		}
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		if got, err := v.DecryptPath(stored); err != nil || got != upper+"/"+storedLower {
			t.Errorf("sidecar %s: %q, %v", name, got, err)
		}
	}
}

// TestLongPathsStayInside: a link in place of a directory leads nowhere.
func TestLongPathsStayInside(t *testing.T) {
	kr := newTestKeyring()
	dir, _ := initVolume(t, kr, InitOptions{})
	v := mustOpen(t, dir, kr, OpenOptions{})
	_, stored, _ := longDir(t, v)
	upper, _, _ := strings.Cut(stored, "/")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Rename(filepath.Join(dir, upper), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, upper)); err != nil {
		t.Fatal(err)
	}
	if got, err := v.DecryptPath(stored); !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("through a link: %q, %v", got, err)
	}
}
