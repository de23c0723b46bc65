package fusedev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mount says what to mount and how.
type Mount struct {
	Point      string   // an existing directory
	Source     string   // shown as the source of the mount
	Type       string   // shown behind "fuse." as the type
	Flags      uintptr  // for mount(2), MS_*; for root alone
	Options    []string // words for the kernel; for others than root also those for fusermount3, such as noexec
	AllowOther bool
	MaxRead    int  // bytes; the largest READ
	Setuid     bool // mount with the help of fusermount3, as others than root must
}

// named is the source, or the type if it has no name.
func (m *Mount) named() string {
	if m.Source == "" {
		return m.Type
	}
	return m.Source
}

// Open mounts. Nothing at the mountpoint answers until Serve runs.
func Open(m Mount) (*Device, error) {
	point, err := filepath.Abs(m.Point)
	if err != nil {
		return nil, err
	}
	m.Point = point
	open := m.direct
	if m.Setuid {
		open = m.fusermount
	}
	fd, err := open()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return newDevice(fd, m), nil
}

// words are the options that both ways have in common.
func (m *Mount) words() []string {
	words := append([]string{fmt.Sprintf("max_read=%d", m.MaxRead)}, m.Options...)
	if m.AllowOther {
		words = append(words, "allow_other")
	}
	return words
}

// direct mounts with mount(2).
func (m *Mount) direct() (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(m.Point, &st); err != nil {
		return -1, err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/fuse: %w", err)
	}
	data := append([]string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
	}, quoted(m.words())...)
	if err := unix.Mount(m.named(), m.Point, "fuse."+m.Type, m.Flags, strings.Join(data, ",")); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// quoted protects commas in values, such as those of a security label, as the kernel's own parsers for these understand it.
func quoted(words []string) (all []string) {
	for _, word := range words {
		if name, value, ok := strings.Cut(word, "="); ok && strings.Contains(value, ",") {
			word = name + `="` + value + `"`
		}
		all = append(all, word)
	}
	return all
}

// fusermount has the set-uid program fusermount3 mount, which sends the open /dev/fuse through a socket.
func (m *Mount) fusermount() (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pair[0]) }() // only read from
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3")
	options := append(m.words(), "fsname="+escaped(m.named()), "subtype="+escaped(m.Type))
	cmd := exec.Command(fusermountProgram(), "-o", strings.Join(options, ","), "--", m.Point)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{"_FUSE_COMMFD=3"} // and no secret of ours
	if err := errors.Join(said(cmd), theirs.Close()); err != nil {
		return -1, err
	}
	return receiveDescriptor(pair[0])
}

// fusermountProgram is the helper of libfuse 3, or that of libfuse 2, which speaks the same protocol. A service may have no PATH.
func fusermountProgram() string {
	for _, name := range []string{"fusermount3", "/bin/fusermount3", "fusermount", "/bin/fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return "fusermount3"
}

// escaped protects the characters that separate options.
func escaped(value string) string { return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(value) }

// said runs cmd; what it writes to its standard error becomes part of the error.
func said(cmd *exec.Cmd) error {
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(stderr.String()); text != "" {
			return fmt.Errorf("%s (%w)", text, err)
		}
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

// receiveDescriptor returns the descriptor that the other end of a socket has sent.
func receiveDescriptor(socket int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 4), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return -1, err
	}
	if len(messages) != 1 {
		return -1, fmt.Errorf("fusermount3 has mounted nothing: %w", io.ErrUnexpectedEOF)
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	if len(descriptors) != 1 {
		for _, fd := range descriptors {
			_ = unix.Close(fd) // not used
		}
		return -1, fmt.Errorf("fusermount3 has sent %d descriptors", len(descriptors))
	}
	return descriptors[0], nil
}

// Unmount unmounts. It fails with EBUSY while the mount is in use; a file that was closed just before may still count, so it
// is tried for some time. It does not wait for Serve to end.
func (d *Device) Unmount() error {
	const tries = 5
	pause := time.Duration(0)
	for try := 1; ; try++ {
		err := d.unmount()
		if err == nil || try == tries || !d.mount.Setuid && err != unix.EBUSY {
			return err
		}
		pause = 2*pause + 5*time.Millisecond
		time.Sleep(pause)
	}
}

func (d *Device) unmount() error {
	if d.mount.Setuid {
		return said(exec.Command(fusermountProgram(), "-u", "--", d.mount.Point))
	}
	return unix.Unmount(d.mount.Point, 0)
}
