package cache

import (
	"context"
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

	mu     sync.Mutex // guards what follows; taken before none
	next   int64      // the block that a sequential reader asks for next, -1 at first
	window int64      // blocks to have ahead of the reader
	run    int64      // blocks read in order since the last jump; -1: since the file's beginning
	low    int64      // the first block read since next last moved on
	back   int        // how often that moved back
	needed int64      // the block up to which the disk was told of this reader
}

// Reads of one process come a little out of order through the kernel: a step
// back of up to slack blocks is still a sequential read, unless more
// follow: the C library copies large pieces from their end.
const slack = 16

// vicinity is how many blocks behind a reader are not worth pushing.
const vicinity = 8

// Size returns the content's size in bytes.
func (f *File) Size() int64 { return f.ct.key.Size }

// Generation tells the content from others that the same key had before or has
// after it: where it is the same, what was read through another handle is of the
// same content.
func (f *File) Generation() uint64 { return f.ct.generation }

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
	first, last := off/BlockSize, (off+int64(want)-1)/BlockSize
	window, jumped := f.follow(first, last)
	for done := 0; done < want; {
		n, err := f.ct.read(ctx, p[done:want], off+int64(done), last, !f.Later)
		if err != nil {
			return 0, err
		}
		if done == 0 { // by now the origin has shown what it can
			f.ct.ahead(first, last, window, jumped, f.Whole)
			f.readAhead(last+1, window)
		}
		done += n
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

// readAhead has what lies on disk of the window of blocks from next on read
// into the system's page cache: the kernel's own read-ahead does not see that
// the reads of many handles, which come out of order, follow each other.
func (f *File) readAhead(next, window int64) {
	f.mu.Lock()
	from, to := max(f.needed, next), min(next+window, disk.BlocksOf(f.Size()))
	if window == 0 || from > next+window || to-from < min(window/2, maxUnit) {
		if window == 0 || from > next+window {
			f.needed = 0
		}
		f.mu.Unlock()
		return
	}
	f.needed = to
	f.mu.Unlock()
	ct := f.ct
	ct.c.mu.Lock()
	var file *disk.File
	if first, _ := ct.onDisk(from); first {
		if last, _ := ct.onDisk(to - 1); last {
			file = ct.store.file
		}
	}
	ct.c.mu.Unlock()
	if file != nil {
		file.WillNeed(from*BlockSize, (to-from)*BlockSize)
	}
}

// follow notes a read of blocks first to last and returns how many blocks
// after them are worth having, and whether it followed on none. The window
// opens with the second block read in order, doubles with each further one,
// and closes at a jump; a jump within it is none. Behind a jump it is at most
// a quarter of what was read in order since: a large read at random is many of the
// kernel's, and brings little more than itself.
func (f *File) follow(first, last int64) (window int64, jumped bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch n := last - first + 1; {
	case f.next < 0 && first == 0: // a beginning: of what, the next read tells
		f.next, f.run = last+1, -1
	case f.next < 0, first > f.next+f.window, first < f.next-slack, f.goesBack(first):
		f.next, f.low, f.run, f.window = last+1, first, n, 0
		return 0, true
	case last >= f.next:
		f.window = min(max(2*f.window, 2*n, 4), maxWindow)
		if f.run >= 0 {
			f.run += last + 1 - f.next
			f.window = min(f.window, f.run/4)
		}
		f.next, f.low, f.back = last+1, first, 0
	}
	return f.window, false
}

// goesBack tells whether a read at block first is not the first in a row that
// lies before all of those since the reader last moved on. f.mu is held.
func (f *File) goesBack(first int64) bool {
	if first >= f.low {
		return false
	}
	f.low = first
	f.back++
	return f.back > 1
}

// Backing gives the file that holds the whole content, every block of which
// was written by this process or held against its checksum; nil while there is
// none. It stays as it is, and open until Close.
func (f *File) Backing() *os.File {
	f.ct.c.mu.Lock()
	var file *disk.File
	if f.ct.err == nil && f.ct.store.open {
		file = f.ct.store.file
	}
	f.ct.c.mu.Unlock()
	if file == nil {
		return nil
	}
	return file.Backing()
}

// Wake has w called when blocks have come that nobody has asked for yet; see
// [File.Fresh]. w must not wait, nor call the File. One handle of a content is
// served, the last that asked.
func (f *File) Wake(w func()) {
	f.ct.c.mu.Lock()
	defer f.ct.c.mu.Unlock()
	f.ct.wake = w
}

// Fresh gives bytes that have come and that nobody has asked for yet: as many
// blocks that follow each other as p holds. Each is given once; n is 0 where
// there is none.
func (f *File) Fresh(p []byte) (n int, off int64) {
	ct := f.ct
	ct.c.mu.Lock()
	near := int64(0)
	if f.mu.TryLock() {
		near = max(f.next, 0)
		f.mu.Unlock()
	}
	// The reader asks for what is next before long, and a page that it waits
	// for is not to be waited for by who pushes.
	for i := near; i < near+vicinity; i++ {
		ct.fresh.clear(i)
	}
	i := ct.fresh.next(near)
	if i < 0 {
		i = ct.fresh.next(0)
	}
	last := i
	if i >= 0 {
		for last+1-i < int64(len(p)/BlockSize) && ct.fresh.has(last+1) {
			last++
		}
		for j := i; j <= last; j++ {
			ct.fresh.clear(j)
		}
	}
	ct.c.mu.Unlock()
	if i < 0 {
		return 0, 0
	}
	off = i * BlockSize
	want := int(min((last+1)*BlockSize, f.Size()) - off)
	for n < want {
		m, ok := ct.readHere(p[n:want], off+int64(n), last)
		if !ok {
			break
		}
		n += m
	}
	return n, off
}

// readHere is content.read of what is here and right.
func (ct *content) readHere(p []byte, off, last int64) (int, bool) {
	i := off / BlockSize
	ct.c.mu.Lock()
	_, good := ct.onDisk(i)
	here := ct.err == nil && (ct.inMemory(i) != nil || good)
	ct.c.mu.Unlock()
	if !here {
		return 0, false
	}
	n, err := ct.read(context.Background(), p, off, last, false)
	return n, err == nil
}

// Close lets go of the content. What was fetched stays in the cache as long
// as its bounds allow. A second Close does nothing.
func (f *File) Close() error {
	f.once.Do(f.ct.closed)
	return nil
}
