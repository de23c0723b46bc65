package volume

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/envfs/envfs/keyring"
)

// rewrapRequests is how many requests are under way at once.
const rewrapRequests = 4

// ask collects items into groups, has the key service rewrap their keys, and hands the groups on. After an error of the
// service what was answered is handed on, and the rest let go.
func (r *rewrap) ask(ctx context.Context, items <-chan *rewrapItem, groups chan<- []*rewrapItem) error {
	for {
		group := r.collect(items)
		if len(group) == 0 {
			return nil
		}
		answered, err := r.askFor(ctx, group)
		if len(answered) > 0 {
			groups <- answered
		}
		if err != nil {
			return err
		}
	}
}

// collect takes a group of items, fewer only at the end.
func (r *rewrap) collect(items <-chan *rewrapItem) []*rewrapItem {
	var group []*rewrapItem
	for it := range items {
		group = append(group, it)
		if len(group) == r.group {
			break
		}
	}
	return group
}

// askFor fills in the new keys of a group and returns those items that have one.
func (r *rewrap) askFor(ctx context.Context, group []*rewrapItem) ([]*rewrapItem, error) {
	var old []*rewrapItem
	for _, it := range group {
		if !it.spare {
			old = append(old, it)
		}
	}
	// A request that fails does not take back those under way: what they bring is good.
	var requests errgroup.Group
	requests.SetLimit(rewrapRequests)
	for len(old) > 0 {
		batch := old[:min(len(old), keyring.DefaultBatch)]
		old = old[len(batch):]
		requests.Go(func() error { return r.askBatch(ctx, batch) })
	}
	err := requests.Wait()
	var answered []*rewrapItem
	for _, it := range group {
		switch {
		case it.new != "":
			answered = append(answered, it)
		case it.fd >= 0: // not told as failed
			r.closeItem(it)
		}
	}
	return answered, err
}

// askBatch makes one request. Items that fail are told and taken out of the works.
func (r *rewrap) askBatch(ctx context.Context, batch []*rewrapItem) error {
	wrapped := make([]keyring.Wrapped, len(batch))
	for i, it := range batch {
		wrapped[i] = it.old
	}
	answers, err := r.request(ctx, wrapped)
	if err != nil {
		return err
	}
	for i, it := range batch {
		if answers[i].Err != nil {
			r.failItem(it, answers[i].Err)
			it.fd = -1
			continue
		}
		it.new = answers[i].Wrapped
	}
	return nil
}

// request has keys rewrapped, and makes sure that the answers are what was asked for. It may be called while others are.
func (r *rewrap) request(ctx context.Context, wrapped []keyring.Wrapped) ([]keyring.Rewrapped, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	answers, err := r.Keyring.Rewrap(ctx, wrapped)
	if err != nil {
		return nil, err
	}
	if len(answers) != len(wrapped) {
		return nil, fmt.Errorf("the key service gave %d answers to %d keys", len(answers), len(wrapped))
	}
	for i := range answers {
		if a := &answers[i]; a.Err == nil && versionOf(a.Wrapped) < r.version {
			a.Err = fmt.Errorf("the key service gave a key of version %d, although %d is the newest", versionOf(a.Wrapped), r.version)
		}
	}
	return answers, nil
}
