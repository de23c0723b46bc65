package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// echo is the answer of the method echo.
type echo struct {
	Peer Peer
	Text string
}

func methods() map[string]Method {
	return map[string]Method{
		"echo": func(_ context.Context, c Call) (any, error) {
			e := echo{Peer: c.Peer}
			return e, json.Unmarshal(c.Params, &e.Text)
		},
		"fail":   func(context.Context, Call) (any, error) { return nil, errors.New("no luck") },
		"refuse": func(context.Context, Call) (any, error) { return nil, &Error{"busy", "not now"} },
		"flood":  func(context.Context, Call) (any, error) { return strings.Repeat("x", MaxAnswer), nil },
	}
}

func serveAt(t *testing.T, path string, m map[string]Method) *Server {
	t.Helper()
	s, err := Listen(path, m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // tests that look at the result close it themselves
	return s
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "envfs", "m.sock") }

func ask(t *testing.T, path, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return Ask(ctx, path, method, params, result)
}

func TestAsk(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path, methods())
	for _, text := range []string{"", "hello\nworld", strings.Repeat("x", MaxRequest-100)} {
		var got echo
		err := ask(t, path, "echo", text, &got)
		want := Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}
		if err != nil || got.Text != text || got.Peer != want {
			t.Errorf("%v: text of %d bytes from %+v", err, len(got.Text), got.Peer)
		}
	}
	if err := ask(t, path, "echo", strings.Repeat("x", MaxRequest), nil); !errors.Is(err, errTooLong) {
		t.Errorf("a request that is too long: %v", err)
	}
	for method, code := range map[string]string{"fail": CodeFailed, "refuse": "busy", "none": CodeMethod, "flood": CodeFailed} {
		var refused *Error
		if err := ask(t, path, method, nil, nil); !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%s: %v, want code %s", method, err, code)
		}
	}
	if err := ask(t, path, "fail", nil, nil); err == nil || err.Error() != "no luck" {
		t.Errorf("%v", err)
	}
}

// speak sends bytes and returns the answer.
func speak(t *testing.T, path, text string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 {
		t.Fatal(err)
	}
	return string(answer)
}

func TestProtocol(t *testing.T) {
	path := socketPath(t)
	serveAt(t, path, methods())
	for text, want := range map[string]string{
		`{"version":1,"method":"fail"}` + "\n":            `{"version":1,"error":{"code":"failed","message":"no luck"}}` + "\n",
		`{"version":1,"method":"none","more":1}` + "\n":   `{"version":1,"error":{"code":"method","message":"method \"none\" is not known"}}` + "\n",
		`{"version":2,"method":"fail"}` + "\n":            `{"version":1,"error":{"code":"version","message":"version 2 of the protocol is not known, only 1"}}` + "\n",
		`{"method":"fail"}` + "\n":                        `{"version":1,"error":{"code":"version","message":"version 0 of the protocol is not known, only 1"}}` + "\n",
		`{"version":1,"method":"echo","params":1}` + "\n": `{"version":1,"error":{"code":"failed","message":"json: cannot unmarshal number into Go value of type string"}}` + "\n",
		"hello\n":                         `{"version":1,"error":{"code":"request","message":"invalid character 'h' looking for beginning of value"}}` + "\n",
		"\n":                              `{"version":1,"error":{"code":"request","message":"unexpected end of JSON input"}}` + "\n",
		strings.Repeat(" ", MaxRequest+1): `{"version":1,"error":{"code":"request","message":"line too long"}}` + "\n",
		`{"version":1,"method":"refuse"}` + "\n" + "trailing": `{"version":1,"error":{"code":"busy","message":"not now"}}` + "\n",
	} {
		if got := speak(t, path, text); got != want {
			t.Errorf("%.60q is answered with\n%s want\n%s", text, got, want)
		}
	}
}

// TestSilence: who says nothing does not keep a connection.
func TestSilence(t *testing.T) {
	path := socketPath(t)
	s := &Server{timeout: 10 * time.Millisecond, log: slog.New(slog.DiscardHandler), ctx: t.Context()}
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if c, err := l.AcceptUnix(); err == nil {
			s.serve(c)
		}
	}()
	if got := speak(t, path, `{"version":1,`); !strings.Contains(got, `"code":"request"`) {
		t.Errorf("half a request is answered with %q", got)
	}
	<-served
}

// TestAskerLeaves: the method ends with its asker, and with the server.
func TestAskerLeaves(t *testing.T) {
	path := socketPath(t)
	begun, ended := make(chan struct{}), make(chan error)
	s := serveAt(t, path, map[string]Method{"wait": func(ctx context.Context, _ Call) (any, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error)
	go func() { asked <- Ask(ctx, path, "wait", nil, nil) }()
	<-begun
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("the asker is told %v", err)
	}

	go func() { asked <- Ask(t.Context(), path, "wait", nil, nil) }()
	<-begun
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-ended
	if err := <-asked; err == nil {
		t.Error("a result from a closed server")
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if err := ask(t, path, "wait", nil, nil); !errors.Is(err, ErrNotServing) {
		t.Errorf("after the end: %v", err)
	}
}

// TestTooMany: connections beyond the limit are turned away, not kept waiting.
func TestTooMany(t *testing.T) {
	path := socketPath(t)
	begun, end := make(chan struct{}), make(chan struct{})
	serveAt(t, path, map[string]Method{"wait": func(context.Context, Call) (any, error) {
		begun <- struct{}{}
		<-end
		return nil, nil
	}})
	asked := make(chan error)
	for range maxConnections {
		go func() { asked <- Ask(t.Context(), path, "wait", nil, nil) }()
		<-begun
	}
	if err := ask(t, path, "wait", nil, nil); !errors.Is(err, ErrNotServing) {
		t.Errorf("one too many: %v", err)
	}
	close(end)
	for range maxConnections {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
}

// TestHungUp: a process that ends while it is being asked is told of like one that was gone before.
func TestHungUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // with the request unread: the asker's connection is reset
		}
	}()
	err = ask(t, path, "status", nil, nil)
	if want := path + ": " + ErrNotServing.Error(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
