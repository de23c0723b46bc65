package volume

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/crypto"
	"github.com/envfs/envfs/internal/backing"
	"github.com/envfs/envfs/keyring"
)

// VolumeInfo is what can be said of a volume without any key. Nothing in it is
// authenticated.
type VolumeInfo struct {
	Path       string      `json:"path"`
	Format     int         `json:"format"`
	VolumeID   crypto.ID   `json:"volume_id"`
	SlotSize   int         `json:"slot_size"` // bytes
	Names      NameMode    `json:"names"`
	Keyring    KeyringInfo `json:"keyring"`
	KEKVersion int         `json:"kek_version"` // that wrapped the volume key; 0: cannot be told
	Tree       TreeInfo    `json:"tree"`
	// KEKVersions counts the files that have a key by the version that wrapped it, in the slot that counts; ascending.
	KEKVersions []KEKCount `json:"files_by_kek_version"`
}

// KEKCount is how many files have a key wrapped by one version of the key-encryption key.
type KEKCount struct {
	Version int   `json:"kek_version"` // 0: cannot be told, because the header is damaged or cannot be read
	Files   int64 `json:"files"`
}

// OldestKEK returns the oldest version that is still needed, for files or the volume key; 0 if that cannot be told of all.
func (v *VolumeInfo) OldestKEK() int {
	oldest := v.KEKVersion
	for _, c := range v.KEKVersions {
		oldest = min(oldest, c.Version)
	}
	if v.Tree.Unreadable > 0 {
		return 0
	}
	return oldest
}

// KeyringInfo names the keyring of a volume.
type KeyringInfo struct {
	Type  string `json:"type"`
	Mount string `json:"transit_mount,omitempty"`
	Key   string `json:"transit_key,omitempty"`
}

// TreeInfo counts the entries below a ciphertext directory. A file with several
// names counts once for each.
type TreeInfo struct {
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"` // without the root
	Others      int64 `json:"others"`      // links, fifos, sockets, devices
	// Foreign entries have names that no volume key can have made. What is
	// below a foreign directory is not counted.
	Foreign    int64 `json:"foreign"`
	Unreadable int64 `json:"unreadable"` // directories and files that could not be looked at
	Ciphertext int64 `json:"ciphertext_bytes"`
	// Plaintext follows from the sizes on disk; of a file whose size is not
	// possible, whole blocks count.
	Plaintext int64 `json:"plaintext_bytes"`
}

// Inspect reads dir/envfs.json and counts what is in dir and by which key the
// files' keys are wrapped, which takes a read of each header. Its errors are
// those of ReadConfig.
func Inspect(dir string) (_ VolumeInfo, err error) {
	r, err := openRoot(nil, dir)
	if err != nil {
		return VolumeInfo{}, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	c, err := r.readConfig()
	if err != nil {
		return VolumeInfo{}, err
	}
	info := VolumeInfo{
		Path: r.path, Format: c.Format, VolumeID: c.VolumeID, SlotSize: c.SlotSize, Names: c.Names,
		Keyring: KeyringInfo{Type: c.Keyring.Type}, KEKVersion: versionOf(c.WrappedVolumeKey),
	}
	if vault := c.Keyring.Vault; vault != nil {
		info.Keyring.Mount, info.Keyring.Key = vault.Mount, vault.Key
	}
	counter := treeCounter{
		store: r.store, layout: crypto.Layout{SlotSize: int64(c.SlotSize)}, versions: make(map[int]int64),
	}
	t := &tree{store: r.store, names: c.Names, visit: counter.visit, failed: counter.failed}
	if err := t.walk(context.Background(), r.fd(), ""); err != nil {
		return VolumeInfo{}, err
	}
	info.Tree = counter.found
	for _, version := range slices.Sorted(maps.Keys(counter.versions)) {
		info.KEKVersions = append(info.KEKVersions, KEKCount{version, counter.versions[version]})
	}
	return info, nil
}

type treeCounter struct {
	store  *backing.Store
	layout crypto.Layout

	mu       sync.Mutex
	found    TreeInfo      // guarded by mu
	versions map[int]int64 // files by version; guarded by mu
}

func (t *treeCounter) failed(string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found.Unreadable++
}

// visit counts one entry.
func (t *treeCounter) visit(e treeEntry) (enter bool) {
	if e.kind == unix.DT_REG && !e.foreign {
		t.countFile(e)
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case e.foreign:
		t.found.Foreign++
	case e.kind == unix.DT_DIR:
		t.found.Directories++
		return true
	default:
		t.found.Others++
	}
	return false
}

// countFile counts a file. A tree in use changes while it is walked: what is
// gone is no error.
func (t *treeCounter) countFile(e treeEntry) {
	var st unix.Stat_t
	if err := t.store.StatAt(e.dir, e.name, &st); err != nil {
		if !backing.IsNotExist(err) {
			t.failed(e.rel, err)
		}
		return
	}
	version, keyed := t.versionOf(e, &st)
	plain, _ := t.layout.PlainSize(st.Size) // as good as can be told without reading
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found.Files++
	t.found.Ciphertext += st.Size
	t.found.Plaintext += plain
	if keyed {
		t.versions[version]++
	}
}

// versionOf says by which version the key of a file is wrapped, 0 if that cannot
// be told; keyed is false for an empty file, which has none.
func (t *treeCounter) versionOf(e treeEntry, st *unix.Stat_t) (version int, keyed bool) {
	if st.Size == 0 {
		return 0, false
	}
	fd, _, err := openForLook(t.store, e.dir, e.name)
	if err != nil {
		return 0, true
	}
	header := make([]byte, t.layout.HeaderSize())
	n, err := t.store.ReadAt(fd, header, 0)
	hollow := false
	if err == nil && n == len(header) {
		hollow, err = isHollow(t.store, fd, header, st.Size)
	}
	if err = errors.Join(err, t.store.Close(fd)); err != nil || hollow {
		return 0, !hollow
	}
	slot, _, err := crypto.NewestSlot(header[:n], int(t.layout.SlotSize))
	if err != nil {
		return 0, true
	}
	return versionOf(keyring.Wrapped(slot.Wrapped)), true
}

// isOwnName tells the files envfs itself puts beside those of the user.
func isOwnName(name string) bool {
	return crypto.IsReserved(name) && !crypto.IsLong(name)
}
