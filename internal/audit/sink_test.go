package audit

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// memory is a place with room for so many bytes.
type memory struct {
	text   strings.Builder
	room   int
	writes int
}

func (m *memory) Write(line []byte) (int, error) {
	m.writes++
	n := min(len(line), m.room)
	m.room -= n
	m.text.Write(line[:n])
	if n < len(line) {
		return n, unix.ENOSPC
	}
	return n, nil
}

func (m *memory) Room() error {
	if m.room == 0 {
		return unix.ENOSPC
	}
	return nil
}

func (m *memory) Close() error { return nil }

func TestSinkWritesOnceALine(t *testing.T) {
	m := &memory{room: 1000}
	s := &sink{place: m}
	for _, line := range []string{"a\n", "b\n"} {
		if err := s.add([]byte(line)); err != nil {
			t.Error(err)
		}
	}
	if m.writes != 2 || m.text.String() != "a\nb\n" {
		t.Errorf("%d writes of %q", m.writes, m.text.String())
	}
}

func TestSinkAfterFailure(t *testing.T) {
	for room, want := range map[int]string{
		0: "lost|c\n",     // nothing of the line
		2: "aa\nlost|c\n", // a part of it: the next begins a line
	} {
		m := &memory{room: room}
		s := &sink{place: m}
		for range 2 {
			if err := s.add([]byte("aaaa\n")); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("room for %d: %v", room, err)
			}
		}
		if s.ready() == nil {
			t.Errorf("room for %d: ready", room)
		}
		m.room = 10_000
		if err := errors.Join(s.ready(), s.ready(), s.add([]byte("c\n"))); err != nil {
			t.Error(err)
		}
		lines := strings.SplitAfter(m.text.String(), "\n")
		for i, line := range lines {
			if strings.Contains(line, `"op":"lost"`) && strings.Contains(line, `"lost":2,`) {
				lines[i] = "lost|"
			}
		}
		if got := strings.Join(lines, ""); got != want {
			t.Errorf("room for %d: %q, want %q", room, got, want)
		}
	}
}

// TestReadyLooksAhead: it says no before the first line is lost.
func TestReadyLooksAhead(t *testing.T) {
	l := &Log{sinks: []*sink{{place: &memory{room: 10}}, {place: &memory{}}}}
	if err := l.Ready(); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("one of two places is full: %v", err)
	}
	if l.Stats().Lost != 0 {
		t.Errorf("%+v", l.Stats())
	}
}
