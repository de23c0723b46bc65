package fusedev

import (
	"encoding/binary"
	"log/slog"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// kernel is the other end of a device: a socket that keeps requests apart, as /dev/fuse does. When it is closed, reading
// ends.
type kernel struct {
	t      *testing.T
	fd     int
	device *Device
	served chan struct{}
}

// newKernel serves handle, which gets the kind and number of a request and says what is answered.
func newKernel(t *testing.T, restless bool, handle func(opcode uint32, unique uint64, in []byte) (answer bool)) *kernel {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(pair[1], true); err != nil {
		t.Fatal(err)
	}
	k := &kernel{t: t, fd: pair[0], device: newDevice(pair[1], Mount{}), served: make(chan struct{})}
	go func() {
		defer close(k.served)
		k.device.Serve(Options{MaxRequest: 128 << 10, Restless: restless, Log: slog.New(slog.DiscardHandler),
			Handle: func(in, out [][]byte) int {
				if opcodeOf(in[0]) != opInit && !handle(opcodeOf(in[0]), uniqueOf(in[0]), in[0]) {
					return 0
				}
				return len(errorAnswer(out[0], uniqueOf(in[0]), 0))
			}})
	}()
	k.send(opInit, 1<<20, 0)
	if unique, errno := k.answer(); unique != 1<<20 || errno != 0 {
		t.Fatalf("the first request: answer to %d, error %d", unique, errno)
	}
	return k
}

func (k *kernel) send(opcode uint32, unique uint64, size int) {
	k.t.Helper()
	b := make([]byte, max(size, inHeaderSize))
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], opcode)
	binary.NativeEndian.PutUint64(b[8:], unique)
	if _, err := unix.Write(k.fd, b); err != nil {
		k.t.Fatal(err)
	}
}

// answer returns the number and error of the next answer.
func (k *kernel) answer() (unique uint64, errno int32) {
	k.t.Helper()
	b := make([]byte, 1<<10)
	n, err := unix.Read(k.fd, b)
	if err != nil || n < outHeaderSize {
		k.t.Fatalf("answer of %d bytes, %v", n, err)
	}
	return binary.NativeEndian.Uint64(b[8:]), int32(binary.NativeEndian.Uint32(b[4:]))
}

func (k *kernel) close() {
	k.t.Helper()
	if err := unix.Close(k.fd); err != nil {
		k.t.Fatal(err)
	}
	<-k.served
}

const opGetattr, opInit = 3, 26

// TestBlockedRequestsHoldUpNobody: however many requests wait, the next one is carried out.
func TestBlockedRequestsHoldUpNobody(t *testing.T) {
	for _, restless := range []bool{false, true} {
		release := make(chan struct{})
		const waiting = 50 // requests of an odd number wait
		k := newKernel(t, restless, func(_ uint32, unique uint64, _ []byte) bool {
			if unique%2 == 1 {
				<-release
			}
			return true
		})
		for i := range uint64(waiting) {
			k.send(opGetattr, 2*i+1, 0)
			k.send(opGetattr, 2*i+2, 0)
			if unique, errno := k.answer(); unique != 2*i+2 || errno != 0 {
				t.Fatalf("answer %d to request %d, error %d", unique, 2*i+2, errno)
			}
		}
		close(release)
		for range waiting {
			if unique, _ := k.answer(); unique%2 == 0 {
				t.Errorf("a second answer to %d", unique)
			}
		}
		k.close()
	}
}

// TestManyRequestsAtOnce: each gets one answer, large or not.
func TestManyRequestsAtOnce(t *testing.T) {
	k := newKernel(t, true, func(uint32, uint64, []byte) bool { return true })
	const requests = 5000
	seen := map[uint64]bool{}
	var reader sync.WaitGroup
	reader.Go(func() {
		for range requests {
			unique, _ := k.answer()
			if seen[unique] {
				t.Errorf("two answers to %d", unique)
			}
			seen[unique] = true
		}
	})
	for i := range uint64(requests) {
		k.send(opGetattr, i+1, int(i%3)*largeRequest)
	}
	reader.Wait()
	k.close()
}

// TestEndInterruptsRequests: what is under way when the connection ends is interrupted, and waited for.
func TestEndInterruptsRequests(t *testing.T) {
	const waiting = 20
	var mu sync.Mutex
	interrupted, seen := map[uint64]chan struct{}{}, map[uint64]bool{}
	for i := range uint64(waiting) {
		interrupted[2*i+2] = make(chan struct{})
	}
	started := make(chan struct{}, waiting)
	ended := 0
	k := newKernel(t, true, func(opcode uint32, unique uint64, in []byte) bool {
		if opcode == opInterrupt {
			of := binary.NativeEndian.Uint64(in[inHeaderSize:])
			mu.Lock()
			defer mu.Unlock()
			if !seen[of] { // interrupted again until it ends
				seen[of] = true
				close(interrupted[of])
			}
			return false
		}
		started <- struct{}{}
		<-interrupted[unique]
		mu.Lock()
		defer mu.Unlock()
		ended++
		return true
	})
	for i := range uint64(waiting) {
		k.send(opGetattr, 2*i+2, 0)
	}
	for range waiting {
		<-started
	}
	k.close()
	if ended != waiting {
		t.Errorf("Serve returned when %d of %d requests had ended", ended, waiting)
	}
	if err := k.device.InvalidateInode(1, 0, 0); err != unix.ENODEV {
		t.Errorf("a notice after the end: %v", err)
	}
}

// TestSenselessRequests: what has no answer is answered with EIO, unless no answer is expected; what is no request is left out.
func TestSenselessRequests(t *testing.T) {
	k := newKernel(t, false, func(_ uint32, unique uint64, _ []byte) bool { return unique == 10 })
	if _, err := unix.Write(k.fd, make([]byte, inHeaderSize-1)); err != nil {
		t.Fatal(err)
	}
	k.send(opForget, 2, 0)
	k.send(opBatchForget, 4, 0)
	k.send(opInterrupt, 6, interruptRequestSize)
	k.send(opGetattr, 8, 0)
	if unique, errno := k.answer(); unique != 8 || errno != -int32(unix.EIO) {
		t.Errorf("answer to %d with error %d, want EIO to 8", unique, errno)
	}
	k.send(opGetattr, 10, 0)
	if unique, errno := k.answer(); unique != 10 || errno != 0 {
		t.Errorf("answer to %d with error %d, want 10 answered", unique, errno)
	}
	k.close()
}

// TestAnswerFits: the answer has room for what is asked for, and a request cannot make it grow without bound.
func TestAnswerFits(t *testing.T) {
	s := newServer(-1, Options{MaxRequest: 128 << 10})
	request := func(opcode uint32, at int, size uint32) []byte {
		b := make([]byte, at+4)
		binary.NativeEndian.PutUint32(b[4:], opcode)
		binary.NativeEndian.PutUint32(b[at:], size)
		return b
	}
	for _, c := range []struct {
		name    string
		request []byte
		room    int
	}{
		{"read", request(opRead, inHeaderSize+16, 100<<10), 100 << 10},
		{"readdirplus", request(opReaddirplus, inHeaderSize+16, 64<<10), 64 << 10},
		{"readdir", request(opReaddir, inHeaderSize+16, 32<<10), 32 << 10},
		{"getxattr", request(opGetxattr, inHeaderSize, 65536), 65536},
		{"listxattr", request(opListxattr, inHeaderSize, 300), 300},
		{"other", request(opGetattr, inHeaderSize, 1<<30), 0},
		{"too much", request(opRead, inHeaderSize+16, 1<<31), 128 << 10},
		{"cut short", request(opRead, inHeaderSize+12, 0)[:inHeaderSize+16], 0},
	} {
		w := newWorker(s)
		w.begin()
		w.fit(c.request)
		if got := len(w.answer) - argumentsSize; got != c.room {
			t.Errorf("%s: room for %d bytes, want %d", c.name, got, c.room)
		}
	}
}
