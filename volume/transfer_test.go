package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
)

// transferRig is a volume, and plain directories to copy from and to.
type transferRig struct {
	*fileRig
	base string

	mu     sync.Mutex
	failed map[string]error // guarded by mu
	lost   []LostContent
}

func newTransferRig(t *testing.T) *transferRig {
	return &transferRig{fileRig: newFileRig(t), base: t.TempDir()}
}

func (r *transferRig) in(name string) string { return filepath.Join(r.base, name) }

func (r *transferRig) options(force bool) TransferOptions {
	r.failed = map[string]error{}
	return TransferOptions{Force: force, Failed: func(path string, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed[path] = err
	}}
}

func (r *transferRig) importTo(target, source string) TransferCount {
	r.t.Helper()
	count, err := r.vol.Import(r.t.Context(), ImportOptions{TransferOptions: r.options(false), Source: source, Target: target})
	if err != nil || len(r.failed) > 0 {
		r.t.Fatalf("import: %v, %v", err, r.failed)
	}
	return count
}

func (r *transferRig) tryExport(ctx context.Context, o ExportOptions) (TransferCount, error) {
	r.lost = nil
	o.TransferOptions = r.options(o.Force)
	o.Lost = func(l LostContent) { r.lost = append(r.lost, l) }
	return r.vol.Export(ctx, o)
}

func (r *transferRig) export(source, target string) TransferCount {
	r.t.Helper()
	count, err := r.tryExport(r.t.Context(), ExportOptions{Source: source, Target: target})
	if err != nil || len(r.failed) > 0 {
		r.t.Fatalf("export: %v, %v", err, r.failed)
	}
	return count
}

// stored returns the ciphertext path of a plaintext one.
func (r *transferRig) stored(plain string) string {
	r.t.Helper()
	s, err := r.vol.EncryptPath(plain)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// noLeftovers expects no temporary entry in the volume and at the destination.
func (r *transferRig) noLeftovers() {
	r.t.Helper()
	for _, dir := range []string{r.dir, r.base} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if name := filepath.Base(path); strings.HasPrefix(name, rekeyPrefix) || strings.HasPrefix(name, ".envfs-") {
				r.t.Errorf("left behind: %s", path)
			}
			return err
		})
		if err != nil {
			r.t.Error(err)
		}
	}
}

// describeEntry says all that is visible of an entry but its name; inodes numbers those seen before.
func describeEntry(t *testing.T, path string, st *unix.Stat_t, inodes map[uint64]int) string {
	t.Helper()
	if _, seen := inodes[st.Ino]; !seen {
		inodes[st.Ino] = len(inodes)
	}
	text := fmt.Sprintf("%o %d:%d links %d inode %d rdev %x mtime %v atime %v", st.Mode, st.Uid, st.Gid, st.Nlink,
		inodes[st.Ino], st.Rdev, st.Mtim, st.Atim)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	xattrs, err := listXattrs(&backing.Store{}, backing.Target{FD: int(dir.Fd()), Name: filepath.Base(path)})
	if err != nil {
		t.Fatal(err)
	}
	text += fmt.Sprintf(" xattrs %q", xattrs)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		text += " → " + target
	case unix.S_IFREG:
		text += fmt.Sprintf(" size %d %s", st.Size, describeContent(t, path, st.Size))
	}
	return text
}

// describeContent sums up what a file holds and where its holes are.
func describeContent(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain := &plainFile{store: &backing.Store{}, fd: int(f.Fd()), size: size}
	text := ""
	for off := int64(0); off < size; {
		from, to, err := plain.nextData(off)
		if err != nil {
			t.Fatal(err)
		}
		if from < to {
			text += fmt.Sprintf("[%d,%d)", from, to)
		}
		off = to
	}
	content, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %x", text, sha256.Sum256(content))
}

// lstatAll returns the attributes of entries below a directory. It must come before anything is read, which moves access
// times.
func lstatAll(t *testing.T, dir string, names []string) []unix.Stat_t {
	t.Helper()
	attrs := make([]unix.Stat_t, len(names))
	for i, name := range names {
		if err := unix.Lstat(filepath.Join(dir, name), &attrs[i]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return attrs
}

// snapshot describes entries below a directory, which had these attributes.
func snapshot(t *testing.T, dir string, names []string, attrs []unix.Stat_t) []string {
	t.Helper()
	all, inodes := make([]string, len(names)), map[uint64]int{}
	for i, name := range names {
		all[i] = describeEntry(t, filepath.Join(dir, name), &attrs[i], inodes)
	}
	return all
}

// treeMaker makes random trees.
type treeMaker struct {
	t     *testing.T
	dir   string
	rnd   *rand.Rand
	names []string // below dir, made so far; directories come before what is in them
	files []string // of names, the regular ones
}

// makeTree fills a new directory with entries of all kinds.
func makeTree(t *testing.T, dir string, seed uint64, entries int) []string {
	t.Helper()
	m := &treeMaker{t: t, dir: dir, rnd: rand.New(rand.NewPCG(seed, 1)), names: []string{"."}}
	m.do(os.Mkdir(dir, 0o755))
	dirs := []string{"."}
	for i := range entries {
		parent := dirs[m.rnd.IntN(len(dirs))]
		name := filepath.Join(parent, m.name(i))
		if m.rnd.IntN(5) == 0 {
			m.do(os.Mkdir(filepath.Join(dir, name), 0o700))
			dirs = append(dirs, name)
		} else {
			m.entry(name)
		}
		m.names = append(m.names, name)
	}
	for i := len(m.names) - 1; i >= 0; i-- {
		m.dress(m.names[i])
	}
	return m.names
}

func (m *treeMaker) do(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *treeMaker) name(i int) string {
	name := fmt.Sprintf("%d-%s", i, []string{"plain", "with space", "ünï", "new\nline", "-dash", ".dot"}[m.rnd.IntN(6)])
	if m.rnd.IntN(6) == 0 {
		name += strings.Repeat("l", MaxName-len(name))
	}
	return name
}

func (m *treeMaker) entry(name string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	switch kind := m.rnd.IntN(12); {
	case kind == 0:
		m.do(os.Symlink(strings.Repeat("../t", 1+m.rnd.IntN(200)), path))
	case kind == 1:
		m.do(unix.Mkfifo(path, 0o600))
	case kind == 2 && os.Geteuid() == 0:
		m.do(unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(m.rnd.IntN(200))))))
	case kind < 5 && len(m.files) > 0:
		m.do(os.Link(filepath.Join(m.dir, m.files[m.rnd.IntN(len(m.files))]), path))
	default:
		m.file(path)
		m.files = append(m.files, name)
	}
}

// file makes a regular file: empty, small, at the edge of a block, large, or with holes.
func (m *treeMaker) file(path string) {
	m.t.Helper()
	f, err := os.Create(path)
	m.do(err)
	defer f.Close()
	size := []int64{0, 1, block - 1, block, block + 1, 300 * block, int64(m.rnd.IntN(3 << 20))}[m.rnd.IntN(7)]
	if m.rnd.IntN(3) > 0 {
		_, err = f.Write(pattern(m.rnd.Uint64(), size))
		m.do(err)
		return
	}
	m.do(f.Truncate(size)) // all of it a hole, but for two places
	for range m.rnd.IntN(3) {
		_, err = f.WriteAt([]byte("here"), m.rnd.Int64N(size+1))
		m.do(err)
	}
}

// dress gives an entry attributes at random. It is called for what is in a directory before the directory.
func (m *treeMaker) dress(name string) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	var st unix.Stat_t
	m.do(unix.Lstat(path, &st))
	kind := st.Mode & unix.S_IFMT
	if os.Geteuid() == 0 {
		m.do(os.Lchown(path, m.rnd.IntN(3)*1000, m.rnd.IntN(3)*1000))
	}
	if kind == unix.S_IFREG || kind == unix.S_IFDIR {
		if m.rnd.IntN(2) == 0 {
			m.do(unix.Setxattr(path, "user.note", []byte("of "+name), 0))
			m.do(unix.Setxattr(path, "user.empty", nil, 0))
		}
		if m.rnd.IntN(3) == 0 {
			m.do(unix.Setxattr(path, aclAccess, testACL(), 0))
		}
		if kind == unix.S_IFDIR && m.rnd.IntN(3) == 0 {
			m.do(unix.Setxattr(path, aclDefault, testACL(), 0))
		}
	}
	if kind != unix.S_IFLNK {
		m.do(unix.Fchmodat(unix.AT_FDCWD, path, []uint32{0o644, 0o400, 0o4755, 0o2750, 0o1777, 0o700}[m.rnd.IntN(6)], 0))
	} else if os.Geteuid() == 0 {
		m.do(unix.Lsetxattr(path, "trusted.note", []byte("of a link"), 0))
	}
	times := []unix.Timespec{{Sec: 1e9 + m.rnd.Int64N(1e8), Nsec: m.rnd.Int64N(1e9)}, {Sec: m.rnd.Int64N(1e9), Nsec: m.rnd.Int64N(1e9)}}
	m.do(unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
}

// testACL lets user 1234 read: version 2, and entries of tag, permissions and ID.
func testACL() []byte {
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][3]uint32{{1, 7, 1<<32 - 1}, {2, 4, 1234}, {4, 5, 1<<32 - 1}, {16, 7, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		acl = append(acl, byte(e[0]), 0, byte(e[1]), 0, byte(e[2]), byte(e[2]>>8), byte(e[2]>>16), byte(e[2]>>24))
	}
	return acl
}

// TestTransferRoundTrip encrypts random trees, decrypts them, and compares all that is visible.
func TestTransferRoundTrip(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newTransferRig(t)
			names := makeTree(t, r.in("source"), seed, 80)
			attrs := lstatAll(t, r.in("source"), names)
			imported := r.importTo("tree", r.in("source"))
			if int(imported.Files+imported.Directories+imported.Symlinks+imported.Special+imported.Links) != len(names) {
				t.Errorf("%+v of %d entries", imported, len(names))
			}
			r.reopen(&backing.Store{})
			exported := r.export(r.stored("tree"), r.in("copy"))
			exported.Found, exported.Done, imported.Found, imported.Done = 0, 0, 0, 0
			if exported != imported {
				t.Errorf("imported %+v, exported %+v", imported, exported)
			}
			got := snapshot(t, r.in("copy"), names, lstatAll(t, r.in("copy"), names))
			want := snapshot(t, r.in("source"), names, attrs)
			for i, name := range names {
				if got[i] != want[i] {
					t.Errorf("%q:\n%s, want\n%s", name, got[i], want[i])
				}
			}
			r.noLeftovers()
		})
	}
}

// TestExportDamaged reads damaged files, without and with salvage.
func TestExportDamaged(t *testing.T) {
	const size, last = 300*block + 100, 300 // more than is read at a time
	content := pattern(1, size)
	header := int64(1024)
	at := func(block int64) int64 { return header + block*crypto.CipherBlockSize }
	zeroed := func(from, to int64) []byte {
		b := bytes.Clone(content)
		clear(b[from:min(to, size)])
		return b
	}
	tests := []struct {
		name   string
		damage func(b []byte) []byte
		want   []byte // nil: there is no salvaging it
		lost   []LostRange
	}{
		{"one block", func(b []byte) []byte { b[at(3)+100] ^= 1; return b }, zeroed(3*block, 4*block),
			[]LostRange{{3, 1, crypto.ReasonTampered}}},
		{"last block", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, zeroed(last*block, size),
			[]LostRange{{last, 1, crypto.ReasonTampered}}},
		{"zeroed block", func(b []byte) []byte { clear(b[at(270):at(271)]); return b }, zeroed(270*block, 271*block),
			[]LostRange{{270, 1, crypto.ReasonZeroed}}},
		{"two runs", func(b []byte) []byte { b[at(0)] ^= 1; b[at(1)] ^= 1; b[at(7)] ^= 1; return b },
			func() []byte { b := zeroed(0, 2*block); clear(b[7*block : 8*block]); return b }(),
			[]LostRange{{0, 2, crypto.ReasonTampered}, {7, 1, crypto.ReasonTampered}}},
		{"cut at a block", func(b []byte) []byte { return b[:at(6)] }, zeroed(6*block, size),
			[]LostRange{{6, last - 5, ErrShortFile.Error()}}},
		{"cut within a block", func(b []byte) []byte { return b[:at(6)+1000] }, zeroed(6*block, size),
			[]LostRange{{6, last - 5, ErrShortFile.Error()}}},
		{"cut to the header", func(b []byte) []byte { return b[:header] }, zeroed(0, size),
			[]LostRange{{0, last + 1, ErrShortFile.Error()}}},
		{"extended", func(b []byte) []byte { return append(b, make([]byte, 5000)...) }, content, nil},
		{"no header", func(b []byte) []byte { clear(b[:header]); return b }, nil, nil},
		{"cut in the header", func(b []byte) []byte { return b[:700] }, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newTransferRig(t)
			writeFile(t, r.in("bad"), string(content))
			writeFile(t, r.in("good"), "unharmed")
			bad := r.stored("bad")
			r.importTo(".", r.in("bad"))
			r.importTo(".", r.in("good"))
			r.change(bad, test.damage)

			_, err := r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in("plain")})
			if err != nil || len(r.failed) != 1 || !IsDamage(r.failed[bad]) {
				t.Errorf("without salvage: %v, %v", err, r.failed)
			}
			if _, err := os.Lstat(r.in("plain/bad")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a damaged file is there: %v", err)
			}
			if got, err := os.ReadFile(r.in("plain/good")); err != nil || string(got) != "unharmed" {
				t.Errorf("the other file: %q, %v", got, err)
			}

			_, err = r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in("salvaged"), Salvage: true})
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(r.in("salvaged/bad"))
			if test.want == nil {
				if !errors.Is(err, fs.ErrNotExist) || !IsDamage(r.failed[bad]) || len(r.lost) > 0 {
					t.Errorf("salvaged without a key: %v, %v, %v", err, r.failed, r.lost)
				}
			} else if err != nil || !bytes.Equal(got, test.want) || len(r.failed) > 0 {
				t.Errorf("salvaged %d bytes that differ: %v, %v", len(got), err, r.failed)
			}
			var ranges []LostRange
			for _, l := range r.lost {
				if l.Path != bad || l.Size != size {
					t.Errorf("lost %+v", l)
				}
				ranges = append(ranges, l.Ranges...)
			}
			if !slices.Equal(ranges, test.lost) {
				t.Errorf("lost %v, want %v", ranges, test.lost)
			}
			var out bytes.Buffer
			lost, err := r.vol.Cat(t.Context(), bad, true, &out)
			if test.want != nil && (err != nil || !bytes.Equal(out.Bytes(), test.want) || !slices.Equal(lost.Ranges, test.lost)) {
				t.Errorf("cat: %v, %d bytes, %+v", err, out.Len(), lost)
			}
			if test.want == nil && (!IsDamage(err) || out.Len() > 0) {
				t.Errorf("cat without a key: %v, %d bytes", err, out.Len())
			}
			r.noLeftovers()
		})
	}
}

// TestSalvageSparse cuts a file with holes: what was a hole is one, and what is missing is said in one range, however long.
func TestSalvageSparse(t *testing.T) {
	const size = 1 << 36
	r := newTransferRig(t)
	f, err := os.Create(r.in("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{10 * block, 1 << 30, 1 << 35} {
		if _, err := f.WriteAt([]byte("here"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	r.importTo(".", r.in("sparse"))
	stored := r.stored("sparse")
	whole := int64(1<<30)/block + 1
	if err := os.Truncate(r.path(stored), 1024+whole*crypto.CipherBlockSize+1); err != nil {
		t.Fatal(err)
	}
	_, err = r.tryExport(t.Context(), ExportOptions{Source: stored, Target: r.in("salvaged"), Salvage: true})
	want := []LostRange{{whole, size/block - whole, ErrShortFile.Error()}}
	if err != nil || len(r.failed) > 0 || len(r.lost) != 1 || !slices.Equal(r.lost[0].Ranges, want) {
		t.Fatalf("%v, %v, lost %v", err, r.failed, r.lost)
	}
	var st unix.Stat_t
	if err := unix.Stat(r.in("salvaged"), &st); err != nil || st.Size != size || st.Blocks > 64 {
		t.Errorf("%v, %d bytes in %d sectors", err, st.Size, st.Blocks)
	}
	salvaged, err := os.Open(r.in("salvaged"))
	if err != nil {
		t.Fatal(err)
	}
	defer salvaged.Close()
	for off, want := range map[int64]string{10 * block: "here", 1 << 30: "here", 1 << 35: "\x00\x00\x00\x00"} {
		got := make([]byte, 4)
		if _, err := salvaged.ReadAt(got, off); err != nil || string(got) != want {
			t.Errorf("at %d: %q, %v", off, got, err)
		}
	}
}

// TestExportDamagedNames flips a bit in a name, takes a long one's full name away, and adds what was never of the volume.
func TestExportDamagedNames(t *testing.T) {
	r := newTransferRig(t)
	long := strings.Repeat("n", MaxName)
	for _, name := range []string{"flipped", long, "good"} {
		writeFile(t, r.in(name), "content of "+name)
		r.importTo(".", r.in(name))
	}
	flipped := []byte(r.stored("flipped"))
	flipped[5] ^= 'a' ^ 'b'
	if !couldBeStored(NamesEncrypted, string(flipped)) {
		flipped[5] = 'A'
	}
	lost := r.stored(long)
	err := errors.Join(os.Rename(r.path(r.stored("flipped")), r.path(string(flipped))),
		os.Remove(r.path(crypto.SidecarName(lost))), os.WriteFile(r.path("README"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	for _, salvage := range []bool{false, true} {
		target := fmt.Sprint("salvage ", salvage)
		count, err := r.tryExport(t.Context(), ExportOptions{Source: ".", Target: r.in(target), Salvage: salvage})
		if err != nil || len(r.failed) != 2 || r.failed[string(flipped)] != errNameDamaged || r.failed[lost] != errNameLost ||
			!IsDamage(errNameDamaged) || !IsDamage(errNameLost) || count.Foreign != 1 {
			t.Errorf("%s: %v, %v, %+v", target, err, r.failed, count)
		}
		want := []string{"good", lost}
		if salvage {
			want = append(want, string(flipped))
		}
		slices.Sort(want)
		if got := listNames(t, r.in(target)); !slices.Equal(got[1:], prefixed("/", want)) {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
		if text, err := os.ReadFile(filepath.Join(r.in(target), lost)); err != nil || string(text) != "content of "+long {
			t.Errorf("%s: %q, %v", target, text, err)
		}
	}
}

func prefixed(prefix string, names []string) (all []string) {
	for _, name := range names {
		all = append(all, prefix+name)
	}
	return all
}
