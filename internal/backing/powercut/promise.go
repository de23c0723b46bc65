package powercut

import (
	"bytes"
	"fmt"
	"slices"
)

// promise is what a program may rely on after a power cut at some instant.
type promise struct {
	log *Log
	Guarantee
	// trees are the states of names that may be found: the one that was made durable last, and those after each change since.
	trees []*tree
	sure  *Replay // what is durable
	begun int     // calls that had begun
}

// promise returns what the script had been promised at an instant.
func (s *Script) promise(at int, g Guarantee) *promise {
	p := &promise{log: s.log, Guarantee: g, sure: s.log.Replay()}
	done := 0
	for p.begun < len(s.spans) && s.spans[p.begun].from < at {
		if s.spans[p.begun].to <= at {
			done = p.begun + 1
		}
		p.begun++
	}
	p.sure.Forward(done)
	now := p.sure.tree
	p.trees = append(p.trees, now)
	for i := p.sure.sure; i < p.begun; i++ {
		if e := s.log.events[i]; e.metadata() {
			now = now.clone()
			now.apply(e)
			p.trees = append(p.trees, now)
		}
	}
	return p
}

// content returns what is durable of a file, and the changes since.
func (p *promise) content(id nodeID) *content {
	f := *p.sure.file(id)
	f.pending = append([]int(nil), f.pending...)
	for i := p.sure.at; i < p.begun; i++ {
		switch e := p.log.events[i].(type) {
		case write:
			if e.node == id {
				f.pend(i)
			}
		case resize:
			if e.node == id {
				f.pend(i)
			}
		}
	}
	return contentOf(p.log, &f, p.begun)
}

// created reports whether the program was told that the file has a name, or content.
func (p *promise) created(id nodeID) bool {
	for i, e := range p.log.events[:p.sure.at] {
		if e, ok := e.(sync); ok && e.node == id {
			return true
		}
		if e, ok := e.(enter); ok && e.node == id && i < p.sure.sure {
			return true
		}
	}
	return false
}

// checkFile compares a file with what it may be.
func (p *promise) checkFile(id nodeID, f *foundFile) []Violation {
	if f.err != nil {
		if p.created(id) {
			return []Violation{{3, "does not open: " + f.err.Error()}}
		}
		return nil
	}
	c := p.content(id)
	if !p.mayHaveSize(c, f.size) {
		rule := 2
		if len(c.changes) == 0 {
			rule = 1
		}
		return []Violation{{rule, fmt.Sprintf("has %d bytes, and may have %v", f.size, c.steps())}}
	}
	var found []Violation
	for i := range f.blocks {
		if v := p.checkBlock(c, f, int64(i)); v != nil {
			found = append(found, *v)
		}
	}
	return found
}

func (p *promise) checkBlock(c *content, f *foundFile, n int64) *Violation {
	at := n * p.Block
	touching := c.touching(at, at+p.Block)
	rule := 2
	if len(touching) == 0 {
		rule = 1
	}
	if err := f.blocks[n].err; err != nil {
		if p.mayTear(c, at, touching) {
			return nil
		}
		return &Violation{rule, fmt.Sprintf("block %d of %d bytes cannot be read: %v (%s)", n, f.size, err, c.about(at, touching))}
	}
	got := f.blocks[n].data
	want := make([]byte, len(got))
	for kept := range len(touching) + 1 {
		c.version(want, at, touching[:kept])
		if bytes.Equal(got, want) {
			return nil
		}
	}
	return &Violation{rule, fmt.Sprintf("block %d holds %s; %s", n, digest(got), c.about(at, touching))}
}

// mayTear reports whether the block at an offset is one that the guarantee excepts.
func (p *promise) mayTear(c *content, at int64, touching []int) bool {
	return p.WholeMayTear && slices.ContainsFunc(touching, func(i int) bool {
		ch := c.changes[i]
		return ch.data != nil && ch.off <= at && at+p.Block <= ch.end
	})
}

func (c *content) about(at int64, touching []int) string {
	return fmt.Sprintf("%d bytes of it are durable, %d changes came later", max(0, min(c.base.size-at, pageSize)), len(touching))
}

func digest(b []byte) string {
	if len(b) > 16 {
		return fmt.Sprintf("%x… (%d bytes)", b[:16], len(b))
	}
	return fmt.Sprintf("%x", b)
}

// touching returns the changes of [from, to).
func (c *content) touching(from, to int64) (changes []int) {
	for i, ch := range c.changes {
		if ch.off < to && from < ch.end {
			changes = append(changes, i)
		}
	}
	return changes
}

// version makes b, which begins at the offset at, what the file held there after the given changes.
func (c *content) version(b []byte, at int64, changes []int) {
	c.base.read(b, at)
	for _, i := range changes {
		if ch := c.changes[i]; ch.data != nil {
			copyAt(b, at, ch.data, ch.off)
		} else {
			clearAt(b, at, ch.off, ch.end)
		}
	}
}

// steps returns the size before all changes, and after each.
func (c *content) steps() []int64 {
	size := c.base.size
	steps := []int64{size}
	for _, ch := range c.changes {
		if ch.size >= 0 {
			size = ch.size
		} else {
			size = max(size, ch.end)
		}
		steps = append(steps, size)
	}
	return steps
}

// mayHaveSize reports whether size is one of the steps, or on the way between two, where a long write has come to a block's end,
// or to any place in a block that may be short.
func (p *promise) mayHaveSize(c *content, size int64) bool {
	steps := c.steps()
	for i, step := range steps {
		if size == step || i > 0 && (p.NewMayBeShort || size%p.Block == 0) && steps[i-1] < size && size < step {
			return true
		}
	}
	return false
}
