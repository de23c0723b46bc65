package delayproxy

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// arrival is a message and when it came.
type arrival struct {
	after time.Duration
	text  string
}

// pumped connects two pipes by a direction and returns its ends.
func pumped(delay func() time.Duration) (in, out net.Conn, ended chan struct{}) {
	in, src := net.Pipe()
	dst, out := net.Pipe()
	ended = make(chan struct{})
	d := direction{src: src, dst: dst, delay: delay, abort: func() { _ = src.Close(); _ = dst.Close() }}
	go func() {
		d.pump()
		close(ended)
	}()
	return in, out, ended
}

func fixed(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// arrivals reads messages until the end.
func arrivals(t *testing.T, out io.Reader, start time.Time) (all []arrival) {
	t.Helper()
	buf := make([]byte, 1000)
	for {
		n, err := out.Read(buf)
		if err != nil {
			return append(all, arrival{time.Since(start), "(" + err.Error() + ")"})
		}
		all = append(all, arrival{time.Since(start), string(buf[:n])})
	}
}

// TestPumpKeepsPace sends messages at several times: each is late by the delay, and none by more.
func TestPumpKeepsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out, ended := pumped(fixed(50 * time.Millisecond))
		start := time.Now()
		go func() {
			for _, m := range []struct {
				pause time.Duration
				text  string
			}{{0, "a"}, {0, "b"}, {30 * time.Millisecond, "c"}, {200 * time.Millisecond, "d"}} {
				time.Sleep(m.pause)
				if _, err := io.WriteString(in, m.text); err != nil {
					t.Error(err)
				}
			}
			_ = in.Close()
		}()
		want := []arrival{
			{50 * time.Millisecond, "a"}, {50 * time.Millisecond, "b"}, {80 * time.Millisecond, "c"},
			{280 * time.Millisecond, "d"}, {280 * time.Millisecond, "(EOF)"},
		}
		got := arrivals(t, out, start)
		<-ended
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("message %d: %v, want %v", i, got[i], want[i])
			}
		}
	})
}

// TestPumpBounded sends more than is held back: the sender waits, and nothing is lost.
func TestPumpBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out, ended := pumped(fixed(time.Second))
		start := time.Now()
		sent := make(chan time.Duration, 1)
		go func() {
			for i := range pending + 10 {
				if _, err := in.Write([]byte{byte(i)}); err != nil {
					t.Error(err)
				}
			}
			sent <- time.Since(start)
			_ = in.Close()
		}()
		got, err := io.ReadAll(out)
		<-ended
		if err != nil || len(got) != pending+10 {
			t.Fatalf("%d messages, %v", len(got), err)
		}
		for i, b := range got {
			if b != byte(i) {
				t.Fatalf("message %d is number %d", i, b)
			}
		}
		if after := <-sent; after != time.Second {
			t.Errorf("all sent after %v: the line holds back more than it may", after)
		}
	})
}

// TestPumpEnds breaks either end: the pump ends, and the other end learns of it.
func TestPumpEnds(t *testing.T) {
	t.Run("receiver gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			in, out, ended := pumped(fixed(time.Second))
			if err := out.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write([]byte("lost")); err != nil {
				t.Fatal(err)
			}
			<-ended
			if _, err := in.Write([]byte("late")); err == nil {
				t.Error("the sender does not learn that nobody listens")
			}
		})
	})
	t.Run("sender broken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			delivered := &closableBuffer{}
			broken := false
			d := direction{
				src: io.MultiReader(bytes.NewReader([]byte("last words")), failing{}), dst: delivered,
				delay: fixed(time.Second), abort: func() { broken = true },
			}
			d.pump()
			if got := delivered.String(); got != "last words" {
				t.Errorf("delivered: %q", got)
			}
			if delivered.isClosed || !broken {
				t.Error("a broken connection ends as if it had been closed")
			}
		})
	})
}

type closableBuffer struct {
	bytes.Buffer
	isClosed bool
}

func (b *closableBuffer) Close() error {
	b.isClosed = true
	return nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrNoProgress }
