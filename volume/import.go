package volume

import (
	"context"
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// ImportOptions say what to encrypt, and where to.
type ImportOptions struct {
	TransferOptions
	// Source is a file or directory: a path of the file system. A symbolic link is not followed.
	Source string
	// Target is a plaintext path below the root of the volume; "." is the root.
	Target string
}

// Import encrypts a file or a tree into the volume, which must be open for writing, so that no mount has it. What is said of
// Export holds for it, with the ends exchanged. Each file gets a DEK of its own.
func (v *Volume) Import(ctx context.Context, o ImportOptions) (_ TransferCount, err error) {
	if v.pool == nil {
		return TransferCount{}, unix.EROFS
	}
	t := &transfer{
		TransferOptions: o.TransferOptions, v: v,
		from: &plainSource{v: v, store: &backing.Store{}}, to: &cipherSink{v: v},
	}
	if t.volume, err = v.rootKey(); err != nil {
		return TransferCount{}, err
	}
	source, err := filepath.Abs(o.Source)
	if err != nil {
		return TransferCount{}, err
	}
	from := transferFrom{name: filepath.Base(source), path: filepath.Dir(source)}
	if source == "/" {
		from.name = "."
	}
	if from.dir, err = unix.Open(from.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return TransferCount{}, entryError("open", from.path, err)
	}
	defer func() { err = errors.Join(err, t.from.calls().Close(from.dir)) }()
	inside, err := isBelow(t.from.calls(), from.dir, t.volume)
	if err == nil && inside {
		err = entryError("read", o.Source, ErrInsideVolume)
	}
	if err != nil {
		return TransferCount{}, err
	}
	to, err := v.placeIn(o.Target)
	if err != nil {
		return TransferCount{}, err
	}
	defer func() { err = errors.Join(err, v.store.Close(to.dir)) }()
	t.root = to.dir
	return t.run(ctx, func(ctx context.Context) error { return t.start(ctx, from, to) })
}
