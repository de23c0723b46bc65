package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix runs go-fuse's conformance suite over a mount.
func TestPosix(t *testing.T) {
	for _, mode := range []struct {
		name string
		opts Options
	}{
		{"writeback", Options{}},
		{"writethrough", Options{WriteThrough: true}},
		{"allow_other", Options{AllowOther: true}},
		{"fastopen", Options{FastOpen: true}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			for name, test := range posixtest.All {
				if name == "FcntlFlockLocksFile" {
					continue // expects one process's fcntl(2) locks to conflict with each other; no file system does that
				}
				t.Run(name, func(t *testing.T) { test(t, newRig(t, mode.opts).dir) })
			}
		})
	}
}
