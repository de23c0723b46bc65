package main

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/envfs/envfs/fs"
	"github.com/envfs/envfs/internal/control"
)

// The methods of the control socket about freezing.
const (
	methodFreeze = "freeze" // freezeParams → frozen
	methodHold   = "hold"   // frozen → nothing, when that has ended; thaws when the asker is gone
	methodThaw   = "thaw"   // frozen → nothing
)

// freezeParams say how to freeze.
type freezeParams struct {
	Limit time.Duration `json:"limit_ns"` // 0: none
}

// frozen identifies one freeze of a mount.
type frozen struct {
	ID       uint64 `json:"id"` // 0: whichever there is
	Unsealed int    `json:"unsealed,omitempty"`
}

// freezeCode is the code of a control.Error for an error that the other side shall recognise.
func freezeCode(err error) string {
	switch {
	case errors.Is(err, errFrozen):
		return "frozen"
	case errors.Is(err, errThawed):
		return "thawed"
	case errors.Is(err, errEnding):
		return "ending"
	}
	return control.CodeFailed
}

// freezeMethods are answered by the process of a mount.
func (m *monitor) freezeMethods() map[string]control.Method {
	return map[string]control.Method{
		methodFreeze: m.freeze,
		methodHold: onFreeze(m, func(ctx context.Context, f *fs.Freeze) error {
			select {
			case <-f.Done():
			case <-ctx.Done():
				if f.Thaw() == nil {
					m.log.Warn("thawed, because the program that had frozen the mount is gone")
				}
			}
			return nil
		}),
		methodThaw: onFreeze(m, func(_ context.Context, f *fs.Freeze) error { return f.Thaw() }),
	}
}

func (m *monitor) freeze(ctx context.Context, c control.Call) (any, error) {
	var p freezeParams
	if err := json.Unmarshal(c.Params, &p); err != nil {
		return nil, err
	}
	f, err := m.server.Freeze(ctx, p.Limit)
	if err != nil {
		return nil, answerFreeze(err)
	}
	return frozen{ID: f.ID, Unsealed: f.Unsealed}, nil
}

// onFreeze is a method about a freeze that must be the present one.
func onFreeze(m *monitor, do func(context.Context, *fs.Freeze) error) control.Method {
	return func(ctx context.Context, c control.Call) (any, error) {
		var which frozen
		if err := json.Unmarshal(c.Params, &which); err != nil {
			return nil, err
		}
		f := m.server.Frozen()
		if f == nil || which.ID != 0 && which.ID != f.ID {
			return nil, answerFreeze(errThawed)
		}
		return nil, answerFreeze(do(ctx, f))
	}
}

// answerFreeze gives an error a code by which it is known on the other side.
func answerFreeze(err error) error {
	if err == nil {
		return nil
	}
	return &control.Error{Code: freezeCode(err), Message: err.Error()}
}
