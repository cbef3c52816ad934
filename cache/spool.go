package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// Spool is a file that is made from its start to its end, once, while others read
// it. Its first [SpoolMemory] bytes are in memory, and the rest in an unlinked file:
// on the disk of the cache, or, where that takes none, in the directory of temporary
// files.
//
// It is made for whom it is wanted: no piece is asked for as long as nobody waits for
// bytes that are not there.
type Spool struct {
	c      *Cache
	piece  Piece
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows; nothing waits under it
	changed chan struct{}
	made
	making bool // a goroutine is
	ended  bool
	err    error // why it ended before it was whole
	closed bool
	wants  []*want
}

// made is what there is of a Spool.
type made struct {
	head  []byte         // the first bytes
	parts []scratch      // of the rest
	reads sync.WaitGroup // of parts
	size  int64          // bytes that are there
}

// Piece makes the next piece of a file, and tells whether it is the last. It has the
// bytes no more. One goroutine at a time calls it, until it gives the last piece, or
// an error.
type Piece func(context.Context) (b []byte, last bool, err error)

// scratch is a part of a Spool in a file.
type scratch struct {
	*disk.Scratch
	off, end int64 // in the Spool
}

// want is that somebody waits for the bytes before end.
type want struct{ end int64 }

// SpoolMemory is how many bytes of a Spool are in memory.
const SpoolMemory = 256 << 10

// ErrSpoolClosed says that a Spool is nobody's any more.
var ErrSpoolClosed = errors.New("the file has been let go of")

// NewSpool makes an empty Spool of a file in pieces.
func (c *Cache) NewSpool(piece Piece) *Spool {
	s := &Spool{c: c, piece: piece, changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// change wakes all that wait. s.mu is held.
func (s *Spool) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// make makes pieces for as long as somebody wants them.
func (s *Spool) make() {
	for s.wanted() {
		var b []byte
		var last bool
		err := Guard(func() (err error) {
			b, last, err = s.piece(s.ctx)
			return err
		})
		if err == nil {
			err = s.add(b)
		}
		if err != nil || last {
			s.end(err)
		}
	}
}

// wanted tells whether the next piece is to be made; if not, the goroutine that
// makes them ends.
func (s *Spool) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making = false
	for _, w := range s.wants {
		s.making = s.making || w.end > s.size
	}
	s.making = s.making && !s.ended && !s.closed
	if s.closed {
		s.free()
	}
	return s.making
}

// add adds bytes at the end.
func (s *Spool) add(p []byte) error {
	s.mu.Lock()
	n := min(len(p), SpoolMemory-len(s.head))
	s.head = append(s.head, p[:n]...)
	parts, size := s.parts, s.size+int64(n)
	s.mu.Unlock()
	var err error
	if rest := p[n:]; len(rest) > 0 {
		parts, err = s.c.toFile(parts, size, rest)
		size += int64(len(rest))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts = parts; err != nil {
		return err
	}
	s.size = size
	s.change()
	return nil
}

// end says that all is there, or why the rest will never be.
func (s *Spool) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended, s.err = true, err
	s.change()
}

// toFile adds p, which stands at off, to the last of a Spool's parts, or begins
// another where that takes no more.
func (c *Cache) toFile(parts []scratch, off int64, p []byte) ([]scratch, error) {
	last := len(parts) - 1
	if last >= 0 && parts[last].Append(p) == nil {
		grown := append([]scratch(nil), parts...) // parts is read meanwhile
		grown[last].end += int64(len(p))
		return grown, nil
	}
	var errs []error
	for _, begin := range []func() (*disk.Scratch, error){
		func() (*disk.Scratch, error) {
			if c.opt.Disk == nil {
				return nil, errors.New("there is no cache directory")
			}
			return c.opt.Disk.Scratch()
		},
		func() (*disk.Scratch, error) { return disk.TempScratch(c.opt.TempDir) },
	} {
		f, err := begin()
		if err == nil {
			if err = f.Append(p); err == nil {
				return append(parts[:last+1:last+1], scratch{f, off, off + int64(len(p))}), nil
			}
			f.Close()
		}
		errs = append(errs, err)
	}
	return parts, fmt.Errorf("a file of more than %d bytes that is made here needs room on a disk (--cache-dir, TMPDIR): %w", SpoolMemory, errors.Join(errs...))
}

// Len is how many bytes are there, and whether these are all.
func (s *Spool) Len() (n int64, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size, s.ended && s.err == nil
}

// Err is why not all of it can be made; nil where nothing has failed so far.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Making tells whether a piece is being made.
func (s *Spool) Making() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.making
}

// Memory is the bytes of memory that it takes.
func (s *Spool) Memory() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(cap(s.head)) + 500
}

// Grow has more than n bytes made, and waits for them. It gives how many are there
// then, and whether these are all.
func (s *Spool) Grow(ctx context.Context, n int64) (size int64, whole bool, err error) {
	err = s.await(ctx, n+1)
	size, whole = s.Len()
	return size, whole, err
}

// await waits until the bytes before end are there, or all are.
func (s *Spool) await(ctx context.Context, end int64) error {
	w := &want{end}
	s.mu.Lock()
	defer s.mu.Unlock()
	for asked := false; ; {
		switch {
		case s.closed:
			return ErrSpoolClosed
		case s.size >= end, s.ended && s.err == nil:
			return nil
		case s.ended:
			return s.err
		}
		if !asked {
			asked = true
			s.wants = append(s.wants, w)
			defer s.unwant(w)
			if !s.making {
				s.making = true
				go s.make()
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// unwant takes w back. s.mu is held.
func (s *Spool) unwant(w *want) {
	for i, x := range s.wants {
		if x == w {
			s.wants = append(s.wants[:i], s.wants[i+1:]...)
			return
		}
	}
}

// ReadAt fills p from off: whole, or to the end with io.EOF itself, or an error and
// nothing. It waits for bytes that are not there.
func (s *Spool) ReadAt(ctx context.Context, p []byte, off int64) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.await(ctx, off+int64(len(p))); err != nil {
		return 0, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, ErrSpoolClosed
	}
	if left := max(s.size-off, 0); int64(len(p)) > left {
		p, err = p[:left], io.EOF
	}
	if off < int64(len(s.head)) {
		n = copy(p, s.head[off:])
	}
	parts := s.parts
	s.reads.Add(1)
	s.mu.Unlock()
	defer s.reads.Done()
	for _, f := range parts {
		at := off + int64(n)
		if n == len(p) || at >= f.end {
			continue
		}
		m := int(min(int64(len(p)-n), f.end-at))
		if err := f.ReadAt(p[n:n+m], at-f.off); err != nil {
			return 0, err
		}
		n += m
	}
	return n, err
}

// Close lets go of what was made, and ends what is being made. Who waits is told.
func (s *Spool) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.cancel()
	if !s.making { // else the goroutine that does lets go
		s.free()
	}
	s.change()
}

// free lets go of the bytes. s.mu is held.
func (s *Spool) free() {
	parts := s.parts
	s.head, s.parts = nil, nil
	if len(parts) == 0 {
		return
	}
	go func() {
		s.reads.Wait()
		for _, f := range parts {
			f.Close()
		}
	}()
}
