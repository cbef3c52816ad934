package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
)

// File is a handle on a content. Its methods may be called by many at once.
type File struct {
	ct   *content
	once sync.Once

	mu     sync.Mutex // guards what follows; taken before none
	next   int64      // the block that a sequential reader asks for next, -1 at first
	window int64      // blocks to have ahead of the reader
}

// Reads of one process come a little out of order through the kernel: a step
// back of up to slack blocks is still a sequential read.
const (
	slack     = 2
	maxWindow = 64
)

// Size returns the content's size in bytes.
func (f *File) Size() int64 { return f.ct.key.Size }

// ReadAt fills p from offset off. It returns fewer than len(p) bytes only at
// the end of the file, with io.EOF; else all of them, or none and an error:
// [ErrChanged], the source's error, or the cause of ctx's end, which ends this
// wait and no fetch.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	size := f.Size()
	if off < 0 {
		return 0, os.ErrInvalid
	}
	if off >= size {
		return 0, io.EOF
	}
	want := int(min(int64(len(p)), size-off))
	if want == 0 {
		return 0, nil
	}
	if err := f.fill(ctx, p[:want], off); err != nil {
		return 0, err
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

func (f *File) fill(ctx context.Context, p []byte, off int64) error {
	first, last := off/BlockSize, (off+int64(len(p))-1)/BlockSize
	window := f.plan(first, last)
	for i := first; i <= last; i++ {
		b, sp, err := f.ct.block(ctx, i, last)
		if sp != nil {
			err := sp.ReadAt(ctx, p, off)
			if errors.Is(err, os.ErrClosed) { // the spool was given up
				if err = f.ct.state(); err == nil {
					return f.fill(ctx, p, off) // and the content was not: begin anew
				}
			}
			return err
		}
		if err != nil {
			return err
		}
		if i == first && window > 0 {
			f.ct.ahead(last+1, window)
		}
		n := copy(p, b[off-i*BlockSize:])
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// state returns why the content is of no more use, or nil.
func (ct *content) state() error {
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	return ct.err
}

// plan notes a read of blocks first to last and returns how many blocks after
// them are worth having. The window opens with the second block read in
// order, doubles with each further one, and closes at a jump.
func (f *File) plan(first, last int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.next < 0 || first > f.next || first < f.next-slack:
		f.window = 0
		f.next = last + 1
	case last >= f.next:
		f.window = min(max(2*f.window, 4), maxWindow)
		f.next = last + 1
	}
	return f.window
}

// Close lets go of the content. What was fetched stays in the cache as long
// as its bounds allow. A second Close does nothing.
func (f *File) Close() error {
	f.once.Do(f.ct.closed)
	return nil
}
