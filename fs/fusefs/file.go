package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
)

// openFile is a [fs.Handle] as go-fuse wants it.
type openFile struct {
	i        *inode
	h        fs.Handle
	size     int64 // bytes, as the kernel was told; 0 where it grows
	grows    bool
	identity string
	uses     int // of h: the open, and a push; guarded by i.mu
}

// errUnsized says that the kernel would show zeros behind the end of a file: it reads
// by a size that is too large.
var errUnsized = errors.New("its size was not known: a program that maps it, or has it sent (sendfile), must ask for the size of the open file first")

// span is the bytes from off to end.
type span struct{ off, end int64 }

var (
	_ gofs.FileReader   = (*openFile)(nil)
	_ gofs.FileReleaser = (*openFile)(nil)
)

// Read answers whole or with an error: to the kernel a short answer is the
// end of the file, for every reader.
func (f *openFile) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	p := f.i.a.killable(ctx, reading)
	defer p.finish()
	s := span{off, off + int64(len(dest))}
	f.i.waitsFor(s)
	defer f.i.hasRead(s)
	rctx := context.Context(p)
	if log := f.i.a.log; log.Enabled(ctx, slog.LevelDebug) {
		number := f.i.a.numbers.Add(1)
		rctx = cache.WithRequest(p, number)
		log.Debug("read", "request", number, "path", "/"+f.i.Path(nil), "offset", off, "bytes", len(dest))
		defer func() { log.Debug("answered", "request", number, "took", time.Since(p.began)) }()
	}
	n, err := f.h.ReadAt(rctx, dest, off)
	if want := min(int64(len(dest)), f.size-off); err == io.EOF && int64(n) < want {
		err = fmt.Errorf("%w: it ends after %d bytes and was listed with %d", cache.ErrChanged, off+int64(n), f.size)
	}
	if err == io.EOF && f.grows && fillsPages(ctx) && !f.i.sized.Load() {
		err = errUnsized
	}
	if err != nil && err != io.EOF {
		return nil, f.i.fail(reading, "", err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (i *inode) waitsFor(s span) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reading = append(i.reading, s)
}

func (i *inode) hasRead(s span) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if at := slices.Index(i.reading, s); at >= 0 {
		i.reading = slices.Delete(i.reading, at, at+1)
	}
}

func (f *openFile) Release(ctx context.Context) syscall.Errno {
	f.i.a.afterRelease(ctx, f.released)
	return 0
}

func (f *openFile) released() {
	f.i.mu.Lock()
	if at := slices.Index(f.i.cached, f); at >= 0 {
		f.i.cached = slices.Delete(f.i.cached, at, at+1)
	} else {
		f.i.passed--
	}
	f.i.mu.Unlock()
	f.done()
}

// done ends one use of the handle. The last one closes it: a push that meets the
// RELEASE still reads from it.
func (f *openFile) done() {
	f.i.mu.Lock()
	f.uses--
	last := f.uses == 0
	f.i.mu.Unlock()
	if last {
		f.h.Close() // a RELEASE has no answer to tell an error in
	}
}

// passedFile is an openFile that the kernel reads without asking.
type passedFile struct {
	*openFile
	backing *os.File // nil where the inode has one already
}

var _ gofs.FilePassthroughFder = passedFile{}

func (f passedFile) PassthroughFd() (int, bool) {
	if f.backing == nil {
		return 0, false
	}
	return int(f.backing.Fd()), true
}
