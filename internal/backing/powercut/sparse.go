package powercut

import (
	"bytes"
	"maps"
)

// sparse is the content of a file, of which pages of zeros take no place: journals consist of them. Pages are never changed once
// they are in it, so that copies share them.
type sparse struct {
	size  int64
	pages map[int64][]byte // of pageSize bytes each, by number; zero behind the size
}

func newSparse(b []byte) sparse {
	s := sparse{size: int64(len(b)), pages: map[int64][]byte{}}
	for at := 0; at < len(b); at += pageSize {
		page := make([]byte, pageSize)
		copy(page, b[at:])
		s.put(int64(at/pageSize), page)
	}
	return s
}

// put takes page over.
func (s *sparse) put(n int64, page []byte) {
	if bytes.Equal(page, make([]byte, pageSize)) {
		delete(s.pages, n)
	} else {
		s.pages[n] = page
	}
}

// read fills b with what is at the offset at, zeros behind the end.
func (s *sparse) read(b []byte, at int64) {
	clear(b)
	for n := at / pageSize; n*pageSize < at+int64(len(b)); n++ {
		copyAt(b, at, s.pages[n], n*pageSize)
	}
}

// with returns a copy of the given size, in which pages were changed.
func (s *sparse) with(size int64, changed map[int64][]byte) sparse {
	c := sparse{size: size, pages: map[int64][]byte{}}
	maps.Copy(c.pages, s.pages)
	for n, page := range changed {
		c.put(n, page)
	}
	for n, page := range c.pages {
		switch {
		case n*pageSize >= size:
			delete(c.pages, n)
		case (n+1)*pageSize > size:
			page = bytes.Clone(page)
			clear(page[size-n*pageSize:])
			c.put(n, page)
		}
	}
	return c
}

// bytes returns the whole content.
func (s *sparse) bytes() []byte {
	b := make([]byte, s.size)
	s.read(b, 0)
	return b
}
