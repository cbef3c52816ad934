package cache

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mlflowfs/mlflowfs/cache/disk"
)

// File is a handle on a content. Its methods may be called by many at once.
type File struct {
	ct   *content
	once sync.Once

	// Set before the first read: Whole says that a file of this kind is read
	// whole once it is touched, as a model's weights are; Later, that no program
	// waits for what this handle reads, and those of which one does go first.
	Whole, Later bool

	reader prefetcher
}

// Size returns the content's size in bytes.
func (f *File) Size() int64 { return f.ct.key.Size }

// Generation tells the content from others that the same key had before or has
// after it: where it is the same, what was read through another handle is of the
// same content.
func (f *File) Generation() uint64 { return f.ct.generation }

// Proof tells the content from every other that the key has had or will have, in this process
// or in another: the origin's validator, or the nonce of the file on disk. It is empty where
// neither is known yet, as it may be before the first read.
func (f *File) Proof() string {
	ct := f.ct
	ct.c.mu.Lock()
	defer ct.c.mu.Unlock()
	switch on := ct.store.file; {
	case ct.validator != "":
		return "validator " + ct.validator
	case on != nil && on.Kept():
		return fmt.Sprintf("file %016x", on.Nonce())
	}
	return ""
}

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
	ct := f.ct
	first, last := off/BlockSize, (off+int64(want)-1)/BlockSize
	ct.c.mu.Lock()
	window, jumped := f.reader.follow(first, last)
	ct.c.mu.Unlock()
	for done := 0; done < want; {
		n, err := ct.read(ctx, p[done:want], off+int64(done), last, !f.Later)
		if err != nil {
			return 0, err
		}
		done += n
	}
	// By now the origin has shown what it can, and nothing is in the way of this read.
	ct.c.mu.Lock()
	file, from, to := ct.fetchAhead(&f.reader, first, last, window, jumped, f.Whole)
	ct.c.mu.Unlock()
	if file != nil {
		file.WillNeed(from*BlockSize, (to-from)*BlockSize)
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

// Reader reads the content from its beginning, each read until ctx ends.
func (f *File) Reader(ctx context.Context) *io.SectionReader {
	return io.NewSectionReader(inContext{ctx, f}, 0, f.Size())
}

// inContext is a File as an io.ReaderAt.
type inContext struct {
	ctx context.Context
	f   *File
}

var _ io.ReaderAt = inContext{}

func (r inContext) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(r.ctx, p, off) }

// Backing gives the file that holds the whole content, every block of which
// was written by this process or held against its checksum; nil while there is
// none. It stays as it is, and open until Close.
func (f *File) Backing() *os.File {
	f.ct.c.mu.Lock()
	var file *disk.File
	if f.ct.life.err == nil && f.ct.store.open {
		file = f.ct.store.file
	}
	f.ct.c.mu.Unlock()
	if file == nil {
		return nil
	}
	return file.Backing()
}

// Close lets go of the content. What was fetched stays in the cache as long
// as its bounds allow. A second Close does nothing.
func (f *File) Close() error {
	f.once.Do(func() {
		f.ct.c.mu.Lock()
		f.ct.ahead.leave(&f.reader)
		f.ct.c.mu.Unlock()
		f.ct.closed()
	})
	return nil
}
