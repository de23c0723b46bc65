package volume

import (
	"sync"
	"time"
)

// reportProgress calls progress, unless it is nil, ten times a second and when done is called.
func reportProgress[C any](progress func(C), count func() C) (done func()) {
	if progress == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				progress(count())
				return
			case <-tick.C:
				progress(count())
			}
		}
	})
	return func() { close(stop); ended.Wait() }
}
