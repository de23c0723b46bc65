package powercut

import "fmt"

// Replay goes through a Log and knows what is durable at an instant of it.
type Replay struct {
	log   *Log
	at    int // events before it have happened
	sure  int // metadata before it are durable
	tree  *tree
	files map[nodeID]*file
	// ordered and attrs are the numbers of events after the last change of an inode that a sync of it covers: of names, size and
	// holes, or of attributes.
	ordered, attrs map[nodeID]int
}

// file is the content of a regular file.
type file struct {
	data    sparse // durable
	pending []int  // events since
}

// Replay starts at the instant 0.
func (l *Log) Replay() *Replay {
	return &Replay{
		log: l, tree: l.start.clone(), files: map[nodeID]*file{},
		ordered: map[nodeID]int{}, attrs: map[nodeID]int{},
	}
}

func (r *Replay) file(id nodeID) *file {
	f := r.files[id]
	if f == nil {
		f = &file{data: r.log.nodes[id].data}
		r.files[id] = f
	}
	return f
}

// Forward goes on to the instant at, which must not be before the present one.
func (r *Replay) Forward(at int) {
	if at < r.at || at > len(r.log.events) {
		panic(fmt.Sprintf("powercut: no instant %d after %d of %d", at, r.at, len(r.log.events)))
	}
	for ; r.at < at; r.at++ {
		r.happen(r.log.events[r.at])
	}
}

func (r *Replay) happen(e event) {
	next := r.at + 1
	switch e := e.(type) {
	case write:
		r.file(e.node).pend(r.at)
	case resize:
		r.resized(e.node)
	case punch:
		r.resized(e.node)
	case setattr:
		r.attrs[e.node] = next
	case enter:
		r.ordered[e.dir] = next
	case remove:
		r.ordered[e.dir] = next
	case rename:
		r.ordered[e.dir], r.ordered[e.toDir] = next, next
	case sync:
		r.settle(e.node)
		r.ensure(r.ordered[e.node])
		if !e.dataOnly {
			r.ensure(r.attrs[e.node])
		}
	case syncAll:
		for id := range r.files {
			r.settle(id)
		}
		r.ensure(next)
	}
}

func (r *Replay) resized(id nodeID) {
	r.file(id).pend(r.at)
	if !r.log.namesOnly {
		r.ordered[id] = r.at + 1
	}
}

func (f *file) pend(at int) { f.pending = append(f.pending, at) }

// ensure makes metadata durable up to the instant to.
func (r *Replay) ensure(to int) {
	for ; r.sure < to; r.sure++ {
		if e := r.log.events[r.sure]; e.metadata() {
			r.tree.apply(e)
		}
	}
}

// settle makes the content of a file durable.
func (r *Replay) settle(id nodeID) {
	f := r.files[id]
	if f == nil || len(f.pending) == 0 {
		return
	}
	c, all := contentOf(r.log, f, r.at), keepAll{}
	f.data = c.fill(all.size(c.sizes()), all.pick)
	f.pending = nil
}
