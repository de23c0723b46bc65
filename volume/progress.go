package volume

import (
	"sync"
	"time"
)

// progressEvery is how often long work says how far it has come.
const progressEvery = 100 * time.Millisecond

// tellProgress calls tell now and then, from one goroutine, and a last time when the result is called, which returns after that.
func tellProgress(tell func()) (done func()) {
	stop := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				tell()
				return
			case <-tick.C:
				tell()
			}
		}
	})
	return func() { close(stop); ended.Wait() }
}
