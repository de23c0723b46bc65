package volume

import (
	"sync/atomic"
	"testing"

	"github.com/envfs/envfs/internal/backing"
	"golang.org/x/sys/unix"
)

// TestEveryCloseStruck: a close that reports an error has closed all the same. The works on a volume without a mount keep no
// descriptor then, and close none twice, which could be somebody else's by that time.
func TestEveryCloseStruck(t *testing.T) {
	r := newVerifyRig(t)
	r.file("docs/deep/below/file", 3*block)
	transfer := &transferRig{fileRig: r.fileRig, base: t.TempDir()}
	writeFile(t, transfer.in("plain"), "content")
	var calls, at atomic.Int64
	r.reopen(&backing.Store{Hook: hookFunc(func(c *backing.Call) error {
		if c.Op != backing.OpClose {
			return nil
		}
		if _, err := unix.FcntlInt(uintptr(c.FD), unix.F_GETFD, 0); err != nil {
			t.Errorf("close of %d: %v", c.FD, err)
		}
		if calls.Add(1) == at.Load() {
			return unix.EIO
		}
		return nil
	})})
	o, _ := r.repair()
	o.Paths = []string{"."}
	before := openDescriptors(t)
	for what, do := range map[string]func() error{
		"rekey": func() error {
			_, _, err := r.rekey(RekeyOptions{Paths: []string{r.names["docs/deep/below/file"]}})
			return err
		},
		"rewrap": func() error {
			r.fake.Rotate()
			_, _, err := r.rewrap(RewrapOptions{Store: r.vol.store})
			return err
		},
		"import": func() error {
			_, err := r.vol.Import(t.Context(), ImportOptions{
				TransferOptions: transfer.options(true), Source: transfer.in("plain"), Target: "docs/deep/below/copy",
			})
			return err
		},
		"export": func() error {
			_, err := transfer.tryExport(t.Context(), ExportOptions{
				TransferOptions: TransferOptions{Force: true}, Source: r.names["docs/deep/below/file"], Target: transfer.in("out"),
			})
			return err
		},
		"verify": func() error { _, err := r.vol.Verify(t.Context(), o); return err },
	} {
		calls.Store(0)
		at.Store(0)
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		n := calls.Load()
		for i := int64(1); i <= n; i++ {
			calls.Store(0)
			at.Store(i)
			err := do()
			if after := openDescriptors(t); after != before {
				t.Fatalf("%s, close %d of %d fails (%v): %d descriptors are open, before there were %d", what, i, n, err, after, before)
			}
		}
		if n == 0 {
			t.Errorf("%s closes nothing", what)
		}
		t.Logf("%s: %d closes", what, n)
	}
}
