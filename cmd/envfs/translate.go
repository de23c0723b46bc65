package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/envfs/envfs/internal/secret"
	"github.com/envfs/envfs/volume"
)

// translator does the work of one run.
type translator struct {
	*pathCommand
	out    *bufio.Writer
	volume *volume.Volume // nil until it is needed
	dir    string         // of volume, resolved
	failed error          // the first path that could not be translated
}

func (t *translator) all(ctx context.Context, args []string) error {
	if t.pathCommand.dir != "" {
		if err := t.open(ctx, t.pathCommand.dir); err != nil {
			return err
		}
	}
	each := func(name string) error { return t.one(ctx, name) }
	if len(args) == 0 {
		return errors.Join(t.list(each), t.failed)
	}
	for _, name := range args {
		if err := each(name); err != nil {
			return err
		}
	}
	return t.failed
}

// list reads paths from standard input.
func (t *translator) list(each func(string) error) error {
	in := bufio.NewScanner(t.app.stdin)
	in.Buffer(nil, 1<<20)
	if t.nul {
		in.Split(splitNUL)
	}
	for in.Scan() {
		if in.Text() == "" {
			continue
		}
		if err := each(in.Text()); err != nil {
			return err
		}
	}
	return in.Err()
}

func splitNUL(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// one translates a path and prints the result. Only an error that concerns
// all paths is returned.
func (t *translator) one(ctx context.Context, name string) error {
	result, err := t.translate(ctx, name)
	var fatal *openError
	switch {
	case errors.As(err, &fatal):
		return fatal.err
	case err != nil && t.failed == nil:
		t.failed = err // printed at the end, with its hint
		return nil
	case err != nil:
		fmt.Fprintf(t.app.stderr, "envfs: %v\n", err)
		return nil
	}
	end := byte('\n')
	if t.nul {
		end = 0
	}
	_, err = t.out.WriteString(result + string(end))
	return err
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
	secret.ProtectProcess(log)
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
