package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/volume"
)

// maxListed bounds a path in a list, in bytes: no system call takes as much.
const maxListed = 64 << 10

var errListedTooLong = errors.New("longer than any path")

// translator does the work of one run.
type translator struct {
	*pathCommand
	out    *bufio.Writer
	volume *volume.Volume // nil until it is needed
	dir    string         // of volume, resolved

	paths, failed int
	worst         error // of the paths that could not be translated
}

func (t *translator) all(ctx context.Context, args []string) error {
	if t.pathCommand.dir != "" {
		if err := t.open(ctx, t.pathCommand.dir); err != nil {
			return err
		}
	}
	if len(args) == 0 {
		return errors.Join(t.list(ctx), t.failures())
	}
	for _, name := range args {
		if err := t.one(ctx, name); err != nil {
			return err
		}
	}
	return t.failures()
}

// list translates paths from standard input as they come: before it waits for more, what is done has been written.
func (t *translator) list(ctx context.Context) error {
	in := bufio.NewReaderSize(t.app.stdin, maxListed)
	for {
		if in.Buffered() == 0 {
			if err := t.out.Flush(); err != nil {
				return err
			}
		}
		name, err := t.next(in)
		if errors.Is(err, errListedTooLong) {
			t.paths++
			t.fail(about(name[:64]+"…", err))
			continue
		}
		if name != "" {
			if err := t.one(ctx, name); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// next returns the next path, which may be the last one together with io.EOF. One that is too long is passed over, and its
// beginning returned.
func (t *translator) next(in *bufio.Reader) (string, error) {
	name, err := in.ReadSlice(t.end())
	if !errors.Is(err, bufio.ErrBufferFull) {
		return strings.TrimSuffix(string(name), string(t.end())), err
	}
	start := string(name)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice(t.end())
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return start, errListedTooLong
}

// end is what paths end with, in lists and in the output.
func (t *translator) end() byte {
	if t.nul {
		return 0
	}
	return '\n'
}

// one translates a path and prints the result. Only an error that concerns
// all paths is returned.
func (t *translator) one(ctx context.Context, name string) error {
	t.paths++
	result, err := t.translate(ctx, name)
	var fatal *openError
	if errors.As(err, &fatal) {
		return fatal.err
	}
	if err != nil {
		t.fail(err)
		return nil
	}
	_, err = t.out.WriteString(result + string(t.end()))
	return err
}

// fail reports a path, after what was translated before it.
func (t *translator) fail(err error) {
	t.failed++
	if t.worst == nil || severity(err) > severity(t.worst) {
		t.worst = err
	}
	_ = t.out.Flush() // an error of it stays, and the next write or the end reports it
	fmt.Fprintf(t.app.stderr, "envfs: %v\n", err)
}

// failures sums up; its class, and so the exit code, is that of the worst.
func (t *translator) failures() error {
	if t.failed == 0 {
		return nil
	}
	return classedError{fmt.Sprintf("%d of %d paths could not be translated", t.failed, t.paths), t.worst}
}

// openError is a volume that cannot be opened.
type openError struct{ err error }

func (e *openError) Error() string { return e.err.Error() }

func (t *translator) translate(ctx context.Context, name string) (string, error) {
	rel := name
	if t.pathCommand.dir == "" {
		p, err := locate(name)
		if err != nil {
			return "", err
		}
		if !t.decrypt && p.plaintext == "" {
			return "", about(name, errors.New("not in a mount"))
		}
		if !t.decrypt {
			return p.rel, nil
		}
		if err := t.open(ctx, p.volume); err != nil {
			return "", &openError{err}
		}
		rel = p.rel
	} else if filepath.IsAbs(name) {
		below, err := filepath.Rel(t.dir, filepath.Clean(name))
		if err != nil || !filepath.IsLocal(below) {
			return "", about(name, errOutside)
		}
		rel = below
	}
	if t.decrypt {
		return t.volume.DecryptPath(rel)
	}
	return t.volume.EncryptPath(rel)
}

// open opens the volume of all paths.
func (t *translator) open(ctx context.Context, dir string) (err error) {
	dir, err = resolve(dir)
	if err != nil {
		return err
	}
	if t.volume != nil {
		if dir != t.dir {
			return about(dir, fmt.Errorf("%w at %s", errOutside, t.dir))
		}
		return nil
	}
	t.volume, err = openForNames(ctx, t.app, &t.keys, dir)
	t.dir = dir
	return err
}

func (t *translator) close() error {
	err := t.out.Flush()
	if t.volume != nil {
		err = errors.Join(err, t.volume.Close())
	}
	return err
}

// openForNames opens a volume beside a mount that may be running, for its
// names only.
func openForNames(ctx context.Context, a *app, keys *keySettings, dir string) (*volume.Volume, error) {
	cfg, err := volume.ReadConfig(dir)
	if err != nil {
		return nil, aboutNamed(dir, err)
	}
	log := a.log()
	a.protect(log)
	passphrase, err := keys.passphrase(ctx, a, dir, cfg)
	if err != nil {
		return nil, err
	}
	arena := secret.NewArena(log)
	kr, err := keyringOpener{keySettings: *keys, arena: arena}.open(ctx, cfg, passphrase)
	if err != nil {
		return nil, about(dir, err)
	}
	defer kr.Close() // the names need the volume key only
	v, err := volume.Open(ctx, dir, cfg, kr, volume.OpenOptions{ReadOnly: true, Unlocked: true, Arena: arena, Log: log})
	return v, aboutNamed(dir, err)
}
