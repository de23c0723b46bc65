package delayproxy

import (
	"io"
	"net"
	"sync"
	"time"
)

// Bounds of what a direction holds back: pending pieces of at most pieceSize
// bytes. A sender that is further ahead waits, as it does on a real line.
const (
	pieceSize = 64 << 10
	pending   = 256
)

// piece is what one read brought, to be written at a time. One without data
// stands for the end.
type piece struct {
	due  time.Time
	data []byte
}

// direction is one of the two of a connection.
type direction struct {
	src   io.Reader
	dst   io.WriteCloser
	delay func() time.Duration // how long what arrives now is held back
	abort func()               // called when reading or writing fails; makes the other one fail
	gone  <-chan struct{}      // closed when nothing is to be delivered any more
}

// pump copies until the end of src, each piece as much later as delay says
// when it arrives, and then ends what is sent to dst. What was read before src
// failed is still delivered.
func (d *direction) pump() {
	line := make(chan piece, pending)
	broken := make(chan struct{}) // closed when nothing is written any more
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(line)
		d.receive(line, broken)
	})
	if err := d.deliver(line); err != nil {
		d.abort()
	}
	close(broken)
	reading.Wait()
}

func (d *direction) receive(line chan<- piece, broken <-chan struct{}) {
	send := func(data []byte) bool {
		select {
		case line <- piece{time.Now().Add(d.delay()), data}:
			return true
		case <-broken:
			return false
		}
	}
	for {
		buf := make([]byte, pieceSize)
		n, err := d.src.Read(buf)
		if n > 0 && !send(buf[:n]) {
			return
		}
		if err == io.EOF {
			send(nil)
		}
		if err != nil {
			return
		}
	}
}

// deliver writes pieces when they are due. That line ends without the piece for
// the end means that src failed.
func (d *direction) deliver(line <-chan piece) error {
	for p := range line {
		select {
		case <-time.After(time.Until(p.due)):
		case <-d.gone:
			return net.ErrClosed
		}
		if p.data == nil {
			return closeWrite(d.dst)
		}
		if _, err := d.dst.Write(p.data); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

// closeWrite ends one direction, and both where they cannot end apart.
func closeWrite(dst io.Closer) error {
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return dst.Close()
}
