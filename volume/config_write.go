package volume

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/envfs/envfs/internal/backing"
)

// tempPrefix begins the names under which envfs.json is written before it gets
// its own; 16 hexadecimal digits follow. One that a crash left behind is in
// nobody's way and is removed by the next writer. (O_TMPFILE would leave none,
// but overlay and network file systems lack it, and two ways to write the most
// precious file are one too many.)
const tempPrefix = ConfigName + ".tmp-"

// createConfig publishes envfs.json where none is; ErrExists if there is one.
func (r *root) createConfig(c *Config) error {
	return r.writeConfig(c, nil, r.publishNew)
}

// replaceConfig puts c in the place of the envfs.json with the attributes old,
// whose owner and mode it inherits. The caller holds the lock of envfs.json.
func (r *root) replaceConfig(c *Config, old *unix.Stat_t) error {
	return r.writeConfig(c, old, func(temp string) error {
		if err := r.store.Rename(r.fd(), temp, r.fd(), ConfigName, 0); err != nil {
			return r.failed("rename", ConfigName, err)
		}
		return nil
	})
}

// writeConfig writes c under a temporary name, makes it durable, and lets
// publish give it its own. An error leaves what was there before, except that
// after a failure of the last sync either may be there.
func (r *root) writeConfig(c *Config, like *unix.Stat_t, publish func(temp string) error) error {
	data, err := c.encode()
	if err != nil {
		return r.configError(err)
	}
	temp := tempName()
	if err := r.writeTemp(temp, data, like); err != nil {
		return errors.Join(err, r.removeTemp(temp))
	}
	if err := publish(temp); err != nil {
		return errors.Join(err, r.removeTemp(temp))
	}
	if err := r.store.Sync(r.fd(), false); err != nil {
		return r.failed("sync", "", err)
	}
	return nil
}

func tempName() string {
	var b [8]byte
	rand.Read(b[:])
	return tempPrefix + hex.EncodeToString(b[:])
}

func isTempName(name string) bool {
	digits, ok := strings.CutPrefix(name, tempPrefix)
	return ok && decodeHex(make([]byte, 8), digits) == nil
}

func (r *root) writeTemp(name string, data []byte, like *unix.Stat_t) error {
	fd, err := r.store.Open(r.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return r.failed("create", name, err)
	}
	err = r.fillTemp(fd, data, like)
	if err = errors.Join(err, r.store.Close(fd)); err != nil {
		return r.failed("write", name, err)
	}
	return nil
}

func (r *root) fillTemp(fd int, data []byte, like *unix.Stat_t) error {
	if like != nil {
		target := backing.Target{FD: fd}
		if err := r.store.Chown(target, int(like.Uid), int(like.Gid)); err != nil {
			return err
		}
		if err := r.store.Chmod(target, like.Mode&0o777); err != nil {
			return err
		}
	}
	if _, err := r.store.WriteAt(fd, data, 0); err != nil {
		return err
	}
	return r.store.Sync(fd, false)
}

// publishNew gives temp the name envfs.json unless that is taken. Where the
// file system cannot rename without replacing (NFS), a hard link does it.
func (r *root) publishNew(temp string) error {
	err := r.store.Rename(r.fd(), temp, r.fd(), ConfigName, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		if err = r.store.Link(r.fd(), temp, r.fd(), ConfigName); err == nil {
			err = r.removeTemp(temp)
		}
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%s: %w", r.path, ErrExists)
	case err != nil:
		return r.failed("rename", ConfigName, err)
	}
	return nil
}

func (r *root) removeTemp(name string) error {
	err := r.store.Unlink(r.fd(), name)
	if err != nil && !backing.IsNotExist(err) {
		return r.failed("remove", name, err)
	}
	return nil
}

// removeLeftovers removes what killed writers of envfs.json left. The caller
// holds a lock that keeps other writers away.
func (r *root) removeLeftovers() error {
	return r.names(func(name string) error {
		if !isTempName(name) {
			return nil
		}
		return r.removeTemp(name)
	})
}
