package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// asBefore is what a reader sees of an attack without an effect.
const asBefore = "nothing: all reads as before"

// observe reads all of the directory and says how it differs from what was written.
func (c *tampered) observe() string {
	seen := map[string][]string{} // entries by what is seen of them
	note := func(name, what string) {
		if what != "" && !slices.Contains(seen[what], name) {
			seen[what] = append(seen[what], name)
		}
	}
	c.observeNames(note) // first, because it makes the mount log what it hides
	for _, name := range []string{"a", "b", "g", "s", "t", "d1/x", "d2/x", c.long} {
		note(name, c.observeFile(name))
	}
	for name, want := range map[string]string{"l1": "target/one", "l2": "target/two"} {
		got, err := os.Readlink(c.clear(name))
		note(name, c.observeValue("link", got, want, err))
	}
	for _, x := range [][3]string{{"a", "user.x", "one"}, {"a", "user.y", "two"}, {"b", "user.x", "three"}} {
		buf := make([]byte, 100)
		n, err := unix.Getxattr(c.clear(x[0]), x[1], buf)
		if errors.Is(err, unix.ENOENT) {
			continue // seen already
		}
		note(x[0], c.observeValue("attribute", string(buf[:max(n, 0)]), x[2], err))
	}
	if len(seen) == 0 {
		return asBefore
	}
	var texts []string
	for what, names := range seen {
		if len(names) > 1 {
			what += ", both"
		}
		texts = append(texts, what)
	}
	slices.Sort(texts)
	for i := 1; i < len(texts); i++ {
		if strings.HasPrefix(texts[i-1], undetected) || i > 1 {
			texts[i] = strings.TrimPrefix(texts[i], undetected+": ")
		}
	}
	return strings.Join(texts, "; ")
}

// observeNames looks for entries that nobody made.
func (c *tampered) observeNames(note func(name, what string)) {
	for dir, want := range map[string][]string{"": {"a", "b", "g", "s", "t", "d1", "d2", "l1", "l2", c.long}, "d1": {"x"}, "d2": {"x"}} {
		entries, err := os.ReadDir(c.clear(dir))
		if err != nil {
			note(dir, word(err)+" for the directory")
		}
		for _, e := range entries {
			switch {
			case slices.Contains(want, e.Name()):
			case strings.HasPrefix(e.Name(), "envfs.long."):
				note(e.Name(), "shown under its stored name, and readable")
				if got, err := os.ReadFile(c.clear(path.Join(dir, e.Name()))); err != nil || !bytes.Equal(got, c.now[c.long]) {
					note(e.Name(), "not readable")
				}
			default:
				note(e.Name(), undetected+": it is at the new place")
			}
		}
	}
}

// observeValue says what is seen of a link's target or an attribute.
func (c *tampered) observeValue(what, got, want string, err error) string {
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOENT):
		return undetected + ": the " + what + " is gone"
	case err != nil:
		return word(err) + " for the " + what
	case got != want:
		return undetected + ": reads the value of the other " + what
	}
	return ""
}

// cipherRel is the path of a ciphertext below the ciphertext directory.
func (r *rig) cipherRel(name string) string { return strings.TrimPrefix(r.stored(name), r.cipher+"/") }

// word is the name of an errno.
func word(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// observeFile reads a file block by block and says what is seen of it.
func (c *tampered) observeFile(name string) string {
	fd, err := unix.Open(c.clear(name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		return c.gone(name)
	}
	if err != nil {
		if wfd, werr := unix.Open(c.clear(name), unix.O_RDWR|unix.O_CLOEXEC, 0); werr == nil {
			unix.Close(wfd)
			return word(err) + " at open, but not for writing"
		}
		return word(err) + " at open"
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return word(err) + " for the attributes"
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return undetected + ": shown as what it is now"
	}
	if st.Mode&0o777 != 0o644 || st.Mtim.Sec == tamperedTime {
		return undetected
	}
	content := make([]byte, st.Size)
	var bad []string
	for b := 0; b*block < len(content); b++ {
		part := content[b*block : min((b+1)*block, len(content))]
		n, err := unix.Pread(fd, part, int64(b*block))
		switch {
		case errors.Is(err, unix.EIO):
			bad = append(bad, fmt.Sprint(b))
			copy(part, c.now[name][min(b*block, len(c.now[name])):]) // to compare the others
		case err != nil || n < len(part):
			return fmt.Sprintf("block %d: %d bytes, %s", b, n, word(err))
		}
	}
	text := c.likeness(name, content)
	switch {
	case len(bad) == 0:
		return text
	case text != "":
		return fmt.Sprintf("EIO for blocks %s; %s", strings.Join(bad, ", "), text)
	case len(bad) == (len(content)+block-1)/block:
		return "EIO for every block"
	case len(bad) == 1:
		return fmt.Sprintf("EIO for block %s; the others are readable", bad[0])
	}
	return fmt.Sprintf("EIO for blocks %s; the others are readable", strings.Join(bad, " and "))
}

// gone says what is seen of a name that is not there.
func (c *tampered) gone(name string) string {
	if name == c.long {
		return "" // seen by its other name, or as a file that is not there
	}
	hidden := fmt.Sprintf("directory=%s ", c.r.cipherRel(path.Dir(path.Join(c.dir, name))))
	if c.r.log.count(hidden) > 0 {
		return "hidden, and logged"
	}
	return undetected + ": it is not where it was"
}

// likeness says what a file reads like.
func (c *tampered) likeness(name string, got []byte) string {
	want := c.now[name]
	if bytes.Equal(got, want) {
		return ""
	}
	if len(got) == 0 {
		return undetected + ": an empty file"
	}
	for other, content := range c.now {
		if other != name && bytes.Equal(got, content) {
			return undetected + ": reads as the other one"
		}
	}
	if bytes.Equal(got, c.then[name]) {
		return undetected + ": reads as the older version"
	}
	if len(got) < len(want) && bytes.Equal(got, want[:len(got)]) {
		return undetected + ": reads as a shorter file"
	}
	if len(got) == len(want) {
		return undetected + ": " + c.changedBlocks(name, got)
	}
	return undetected + ": reads something else"
}

// changedBlocks says what blocks read like that have changed in a file of the same size.
func (c *tampered) changedBlocks(name string, got []byte) string {
	zeros, older := 0, 0
	for b := 0; b*block < len(got); b++ {
		lo, hi := b*block, min((b+1)*block, len(got))
		switch {
		case bytes.Equal(got[lo:hi], c.now[name][lo:hi]):
		case bytes.Equal(got[lo:hi], make([]byte, hi-lo)):
			zeros++
		case bytes.Equal(got[lo:hi], c.then[name][lo:hi]):
			older++
		default:
			return "reads something else"
		}
	}
	if older == 0 {
		return "reads zeros there"
	}
	return "reads the older block"
}
