package volume

import (
	"fmt"
	"testing"
)

// BenchmarkAppendSync appends records of 100 bytes to a file and syncs each, as a log does, from one writer and from several on
// files of their own.
func BenchmarkAppendSync(b *testing.B) {
	for _, writers := range []int{1, 4} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			r := newFileRig(b)
			r.journalSize = 0
			files := make(chan *File, writers)
			for i := range writers {
				r.write(fmt.Sprint("f", i), pattern(1, 10))
				files <- r.load(fmt.Sprint("f", i), true)
			}
			p := pattern(2, 100)
			b.SetParallelism(writers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				f := <-files
				defer func() { files <- f }()
				for pb.Next() {
					mustWrite(b, f, p, f.Size())
					mustSync(b, f)
				}
			})
			b.StopTimer()
			for range writers {
				(<-files).Release()
			}
		})
	}
}
