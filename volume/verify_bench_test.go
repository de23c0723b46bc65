package volume

import (
	"testing"

	"github.com/envfs/envfs/internal/backing"
)

// benchFile is how large the file of these benchmarks is: 64 MiB.
const benchFile = 64 << 20

// BenchmarkVerify reads and authenticates a large file; BenchmarkVerifyReadAt is what a mount does of the same.
func BenchmarkVerify(b *testing.B) {
	r := newFileRig(b)
	r.benchFile()
	b.SetBytes(benchFile)
	for b.Loop() {
		if count, err := r.vol.Verify(b.Context(), VerifyOptions{Paths: []string{"."}}); err != nil || count.Bytes < benchFile {
			b.Fatal(count, err)
		}
	}
}

func BenchmarkVerifyReadAt(b *testing.B) {
	r := newFileRig(b)
	f := r.load(r.benchFile(), false)
	defer f.Release()
	buf := make([]byte, 1<<20)
	b.SetBytes(benchFile)
	for b.Loop() {
		for off := int64(0); off < benchFile; off += int64(len(buf)) {
			if n, err := f.ReadAt(buf, off); n < len(buf) || err != nil {
				b.Fatal(n, err)
			}
		}
	}
}

// BenchmarkVerifyQuick looks at 2,000 small files.
func BenchmarkVerifyQuick(b *testing.B) {
	r := newRewrapRig(b)
	r.fill(2000)
	for b.Loop() {
		if count, err := r.vol.Verify(b.Context(), VerifyOptions{Paths: []string{"."}, Quick: true}); err != nil || count.Files != 2000 {
			b.Fatal(count, err)
		}
	}
}

// benchFile makes the file and returns its stored name.
func (r *fileRig) benchFile() string {
	r.t.Helper()
	name, err := r.vol.EncryptPath("large")
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(name, pattern(1, benchFile))
	r.reopen(&backing.Store{})
	return name
}
