package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Ask calls a method of the process that listens at path and decodes its result
// into the value that result points to, unless it is nil. params is sent as JSON,
// unless it is nil.
// It returns at once when ctx ends. Errors: ErrNotServing if nobody listens,
// ErrPeer if somebody does who is neither root nor this user (root may ask
// anybody), and an *Error that the other side has answered.
func Ask(ctx context.Context, path, method string, params, result any) error {
	c, err := dial(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s: %w", path, ErrNotServing)
	}
	if err != nil {
		return err
	}
	defer c.Close() // the answer has been read
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	peer, err := peerOf(c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 && !allowed(peer) {
		return fmt.Errorf("%s: %w", path, ErrPeer)
	}
	err = exchange(c, method, params, result)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", path, ctx.Err())
	case hungUp(err): // it was ended while it was being asked
		return fmt.Errorf("%s: %w", path, ErrNotServing)
	}
	return err
}

// hungUp reports whether the other side went away without an answer.
func hungUp(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
}

func exchange(c *net.UnixConn, method string, params, result any) error {
	req := request{Version: Version, Method: method}
	if params != nil {
		encoded, err := json.Marshal(params)
		if err != nil {
			return err
		}
		req.Params = encoded
	}
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if len(line) >= MaxRequest {
		return errTooLong
	}
	if _, err := c.Write(append(line, '\n')); err != nil {
		return err
	}
	line, err = readLine(c, MaxAnswer)
	if err != nil {
		return err
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	switch {
	case a.Error != nil:
		return a.Error
	case a.Version != Version:
		return fmt.Errorf("answer of version %d of the protocol, which is not known", a.Version)
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}
