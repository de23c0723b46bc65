package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers the requests that come through a socket.
type Server struct {
	path     string
	inode    uint64 // of the socket
	listener *net.UnixListener
	methods  map[string]Method
	log      *slog.Logger
	timeout  time.Duration   // RequestTimeout
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	running  sync.WaitGroup
	slots    chan struct{} // one for each connection
}

// Listen makes a socket at path, whose directory it makes if need be, and
// answers by the given methods until Close. methods must not change any more.
// ErrServing says that another process does so already.
func Listen(path string, methods map[string]Method, log *slog.Logger) (*Server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Server{
		path: path, listener: l, methods: methods, log: log,
		slots: make(chan struct{}, maxConnections), timeout: RequestTimeout,
	}
	s.inode, _ = inodeOf(path) // 0 if it is gone already: then nothing is removed
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	return s, nil
}

// Close ends the calls under way and removes the socket, if it is still there.
func (s *Server) Close() error {
	s.cancel()
	err := s.listener.Close()
	s.running.Wait()
	if inode, ok := inodeOf(s.path); ok && inode == s.inode {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

func inodeOf(path string) (uint64, bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, false
	}
	return st.Ino, true
}

func (s *Server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors: that may pass
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		select {
		case s.slots <- struct{}{}:
			s.running.Go(func() {
				defer func() { <-s.slots }()
				s.serve(c)
			})
		default:
			_ = c.Close() // the asker sees that nobody answers
		}
	}
}

// serve carries one request and its answer.
func (s *Server) serve(c *net.UnixConn) {
	defer c.Close() // what was written has been sent, or nobody wants it
	stop := context.AfterFunc(s.ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	peer, err := peerOf(c)
	if err != nil || !allowed(peer) {
		s.log.Warn("a connection to the control socket was refused", "uid", peer.UID, "pid", peer.PID, "error", err)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(s.timeout)) // fails only if c is closed, as does what follows
	req, err := readRequest(c)
	if err != nil {
		s.send(c, nil, err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	result, err := s.call(c, peer, req)
	s.send(c, result, err)
}

// allowed tells whether a user may ask: root, and the user of this process.
func allowed(p Peer) bool { return p.UID == 0 || int(p.UID) == os.Geteuid() }

func readRequest(r io.Reader) (request, error) {
	line, err := readLine(r, MaxRequest)
	if err != nil {
		return request{}, &Error{CodeRequest, err.Error()}
	}
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return request{}, &Error{CodeRequest, err.Error()}
	}
	if req.Version != Version {
		return request{}, &Error{CodeVersion, fmt.Sprintf("version %d of the protocol is not known, only %d", req.Version, Version)}
	}
	return req, nil
}

var errTooLong = errors.New("line too long")

// readLine reads up to the first line break.
func readLine(r io.Reader, limit int64) ([]byte, error) {
	line, err := bufio.NewReader(io.LimitReader(r, limit+1)).ReadBytes('\n')
	switch {
	case int64(len(line)) > limit:
		return nil, errTooLong
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	}
	return line, err
}

// call carries out a method, and gives it up when the asker goes away.
func (s *Server) call(c *net.UnixConn, peer Peer, req request) (any, error) {
	method := s.methods[req.Method]
	if method == nil {
		return nil, &Error{CodeMethod, fmt.Sprintf("method %q is not known", req.Method)}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() {
		_, _ = c.Read(make([]byte, 1)) // returns when the asker is gone, or below
		cancel()
	})
	result, err := method(ctx, Call{Peer: peer, Params: req.Params})
	_ = c.SetReadDeadline(time.Now())
	watch.Wait()
	return result, err
}

func (s *Server) send(c *net.UnixConn, result any, err error) {
	line, err := encodeAnswer(result, err)
	if err != nil {
		line, _ = encodeAnswer(nil, err) // two short strings
	}
	_ = c.SetWriteDeadline(time.Now().Add(s.timeout))
	if _, err := c.Write(line); err != nil {
		s.log.Debug("an answer was not taken", "error", err)
	}
}

// encodeAnswer returns the line of an answer, or why there can be none.
func encodeAnswer(result any, failure error) ([]byte, error) {
	a := answer{Version: Version}
	if failure != nil {
		if !errors.As(failure, &a.Error) {
			a.Error = &Error{CodeFailed, failure.Error()}
		}
	} else {
		encoded, err := json.Marshal(result)
		if err != nil {
			return nil, err
		}
		a.Result = encoded
	}
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(a); err != nil {
		return nil, err
	}
	if line.Len() > MaxAnswer {
		return nil, errTooLong
	}
	return line.Bytes(), nil
}
