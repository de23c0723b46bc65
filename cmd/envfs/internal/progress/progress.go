// Package progress shows how far long work has come: as a bar on a terminal, elsewhere as a line now and then, so that a log
// is not flooded and somebody who waits sees that something happens. It knows nothing of the work.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// LineEvery is how much time is between two lines where there is no terminal.
const LineEvery = 10 * time.Second

// Options say what a Meter shows.
type Options struct {
	Verb  string // what is done, such as "rewrapped"
	Unit  string // of what, such as "files"; unused with Bytes
	Bytes bool   // the numbers are bytes
	// Number writes a number for a line.
	Number func(int64) string
}

// Meter shows the progress of one piece of work. It is safe for concurrent use.
type Meter struct {
	out  io.Writer
	opts Options

	mu   sync.Mutex
	bar  *progressbar.ProgressBar // nil: lines; guarded by mu
	next time.Time                // of the next line; guarded by mu
	left bool                     // closed; guarded by mu
}

// New makes a Meter that writes to out, as a bar if that is a terminal which can move its cursor.
func New(out io.Writer, o Options) *Meter {
	m := &Meter{out: out, opts: o, next: time.Now().Add(LineEvery)}
	if isTerminal(out) {
		m.bar = newBar(out, o)
	}
	return m
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// newBar makes a bar without colours, whatever NO_COLOR says.
func newBar(out io.Writer, o Options) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(o.Verb), progressbar.OptionEnableColorCodes(false),
		progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100 * time.Millisecond), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(true),
	}
	if o.Bytes {
		options = append(options, progressbar.OptionShowBytes(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionUseIECUnits(true))
	} else {
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(),
			progressbar.OptionSetItsString(o.Unit))
	}
	return progressbar.NewOptions64(1, options...)
}

// Update says that done of total is done. The total may grow; it is final once known is set.
func (m *Meter) Update(done, total int64, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return
	}
	if m.bar == nil {
		m.line(done, total, known)
		return
	}
	// A bar that was full once moves no more, so it is kept from that until it is closed.
	m.bar.ChangeMax64(max(total, done+1))
	_ = m.bar.Set64(done) // that the terminal is gone is found out by what matters
}

// line prints a line if it is time to. The caller holds mu.
func (m *Meter) line(done, total int64, known bool) {
	now := time.Now()
	if now.Before(m.next) {
		return
	}
	m.next = now.Add(LineEvery)
	unit := m.opts.Unit
	if m.opts.Bytes {
		unit = "bytes"
	}
	of := "of " + m.opts.Number(total)
	if !known {
		of = "of at least " + m.opts.Number(total)
	}
	fmt.Fprintf(m.out, "envfs: %s %s %s %s\n", m.opts.Verb, m.opts.Number(done), of, unit)
}

// Println prints a line of its own, above the bar.
func (m *Meter) Println(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil && !m.left {
		_ = m.bar.Clear()
	}
	fmt.Fprintln(m.out, text)
	if m.bar != nil && !m.left {
		_ = m.bar.RenderBlank()
	}
}

// Close takes the bar away.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bar != nil && !m.left {
		_ = m.bar.Exit()
		_ = m.bar.Clear()
	}
	m.left = true
}
