package lifecycle

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// mount is a file system that is busy as long as the test says so.
type mount struct {
	mu       sync.Mutex
	handles  int
	inUse    bool // a working directory or the like, of which only the kernel knows
	activity time.Time
	mounted  bool
	detached bool
	tries    int
	gone     chan struct{}
}

func newMount() *mount { return &mount{mounted: true, gone: make(chan struct{})} }

var errLastWrite = errors.New("last write failed")

func (m *mount) Wait() error {
	<-m.gone
	return errLastWrite
}

func (m *mount) OpenHandles() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.handles
}

func (m *mount) LastActivity() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.activity
}

func (m *mount) unmount(lazy bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	if !m.mounted {
		return errors.New("somebody else's mount")
	}
	busy := m.handles > 0 || m.inUse
	if busy && !lazy {
		return errors.New("busy")
	}
	m.mounted, m.detached = false, busy
	if !busy {
		close(m.gone)
	}
	return nil
}

// use changes the state and counts as a request if the handles change.
func (m *mount) use(handles int, inUse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.handles != handles {
		m.activity = time.Now()
	}
	m.handles, m.inUse = handles, inUse
	if m.detached && handles == 0 && !inUse {
		m.detached = false
		close(m.gone)
	}
}

func (m *mount) request() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.activity = time.Now()
}

// run is a Run under way.
type run struct {
	signals chan os.Signal
	ended   chan struct{}
	log     bytes.Buffer // read only after ended
	err     error        // likewise
	ending  int
	busy    int
	start   time.Time
}

func start(m *mount, idle time.Duration) *run {
	r := &run{signals: make(chan os.Signal, 2), ended: make(chan struct{}), start: time.Now()}
	o := Options{
		Idle:    idle,
		Unmount: m.unmount,
		LogBusy: func() { r.busy++ },
		Signals: r.signals,
		Ending:  func() { r.ending++ },
		Log:     slog.New(slog.NewTextHandler(&r.log, nil)),
	}
	go func() {
		r.err = Run(m, o)
		close(r.ended)
	}()
	return r
}

func (r *run) isOver() bool {
	synctest.Wait()
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// wantEndAt waits for the end and checks when it came.
func (r *run) wantEndAt(t *testing.T, after time.Duration) {
	t.Helper()
	<-r.ended
	if got := time.Since(r.start); got != after {
		t.Errorf("ended after %v, want %v", got, after)
	}
	if r.err != errLastWrite {
		t.Errorf("the error of the last writes became %v", r.err)
	}
}

func TestIdleUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 30*time.Minute)
		r.wantEndAt(t, 30*time.Minute)
		if r.ending != 1 || m.tries != 1 {
			t.Errorf("announced %d times, tried %d times, want 1 and 1", r.ending, m.tries)
		}
	})
}

func TestIdleCountsFromTheLastRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 30*time.Minute)
		time.Sleep(29*time.Minute + 59*time.Second)
		m.request()
		r.wantEndAt(t, 59*time.Minute+59*time.Second)
	})
}

func TestIdleSparesOpenHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 10*time.Minute)
		m.use(1, false)
		time.Sleep(5*time.Hour + 30*time.Second)
		if r.isOver() || m.tries != 0 {
			t.Fatalf("ended or tried (%d times) with a handle open", m.tries)
		}
		m.use(0, false) // the release is a request
		r.wantEndAt(t, 5*time.Hour+10*time.Minute+30*time.Second)
	})
}

func TestIdleSparesWorkingDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 10*time.Minute)
		m.use(0, true)
		time.Sleep(time.Hour + 30*time.Second)
		if r.isOver() {
			t.Fatal("ended with a working directory inside")
		}
		m.use(0, false)
		r.wantEndAt(t, time.Hour+time.Minute) // the next look
		if r.ending != 1 {
			t.Errorf("announced %d times, want once", r.ending)
		}
	})
}

func TestIdleShorterThanRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 2*time.Second)
		m.use(0, true)
		time.Sleep(9 * time.Second)
		m.use(0, false)
		r.wantEndAt(t, 10*time.Second)
	})
}

func TestNoIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 0)
		time.Sleep(10000 * time.Hour)
		if r.isOver() || m.tries != 0 {
			t.Fatalf("ended or tried (%d times) without an idle limit", m.tries)
		}
		r.signals <- syscall.SIGTERM
		<-r.ended
	})
}

func TestSignalUnmounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, 0)
		time.Sleep(time.Minute + time.Millisecond)
		r.signals <- syscall.SIGTERM
		r.wantEndAt(t, time.Minute+time.Millisecond)
		if r.ending != 1 || r.busy != 0 || m.tries != 1 {
			t.Errorf("announced %d, busy %d, tries %d; want 1, 0, 1", r.ending, r.busy, m.tries)
		}
	})
}

func TestSignalWaitsForBusyMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		m.use(1, false)
		r := start(m, 300*time.Millisecond) // the idle limit plays no part any more
		r.signals <- syscall.SIGTERM
		time.Sleep(90*time.Second + 500*time.Millisecond)
		if r.isOver() {
			t.Fatal("ended while busy")
		}
		if r.busy != 1 {
			t.Errorf("holders logged %d times, want once", r.busy)
		}
		m.use(0, false)
		r.wantEndAt(t, 91*time.Second)
		if m.detached || r.ending != 1 {
			t.Errorf("detached %v, announced %d times", m.detached, r.ending)
		}
	})
}

func TestSecondSignalDetachesAndServesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		m.use(2, true)
		r := start(m, 0)
		r.signals <- syscall.SIGTERM
		time.Sleep(time.Minute)
		r.signals <- syscall.SIGTERM
		synctest.Wait()
		if m.mounted || !m.detached {
			t.Fatalf("mounted %v, detached %v after the second signal", m.mounted, m.detached)
		}
		tries := m.tries
		r.signals <- syscall.SIGTERM // a third changes nothing
		time.Sleep(time.Hour)
		if r.isOver() {
			t.Fatal("ended while handles were open")
		}
		if m.tries != tries {
			t.Errorf("unmounted %d times more: the mountpoint is not ours any more", m.tries-tries)
		}
		m.use(0, false)
		<-r.ended
		if !strings.Contains(r.log.String(), "still serving what is open") {
			t.Errorf("third signal not answered in the log:\n%s", r.log.String())
		}
	})
}

func TestUnmountedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMount()
		r := start(m, time.Hour)
		time.Sleep(time.Minute)
		close(m.gone)
		r.wantEndAt(t, time.Minute)
		if m.tries != 0 {
			t.Errorf("tried to unmount %d times what others had unmounted", m.tries)
		}
	})
}
