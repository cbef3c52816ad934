package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/mlflowfs/mlflowfs/cache"
	"github.com/mlflowfs/mlflowfs/fs"
)

// openFile is a Handle that the kernel has.
type openFile struct {
	i        *inode
	number   uint64 // by which the kernel names it; guarded by handles.mu
	h        fs.Handle
	size     int64 // bytes, as the kernel was told; 0 where it grows
	grows    bool
	identity string
	passed   bool // the kernel reads its backing file by itself; guarded by i.mu
	uses     int  // of h: the open, and a push; guarded by i.mu

	noted  atomic.Uint64 // the proof that the session has of what the kernel has read of h; 0: none yet
	expect atomic.Uint64 // the proof of what the kernel had read by a daemon before this one; 0: it was held against h
}

// unproven is the proof of a content that nothing proves to another process.
const unproven = 1

// proof is a hash of what proves h's content to another process, or unproven.
func (f *openFile) proof() uint64 {
	p, is := f.h.(fs.Proven)
	if !is {
		return unproven
	}
	proof := p.Proof()
	if proof == "" {
		return unproven
	}
	return max(xxhash.Sum64String(proof), unproven+1)
}

// provenBy is in the place of the identity of a content that another process had open.
func provenBy(proof uint64) string { return fmt.Sprintf("\x01%x", proof) }

// is tells whether what f reads is the content of an identity, or what such a proof is of.
func (f *openFile) is(identity string) bool {
	if identity == f.identity {
		return true
	}
	proof := f.proof()
	return proof != unproven && identity == provenBy(proof)
}

// hasPages notes in the session what the kernel has of f from now on, with whatever proves it.
// It is called before the kernel has that.
func (f *openFile) hasPages() {
	was := f.noted.Load()
	if was > unproven {
		return
	}
	if proof := f.proof(); proof != was {
		f.noted.Store(proof)
		f.i.a.handles.prove(f)
		f.i.a.names.setPages(f.i, proof)
	}
}

// errUnsized says that the kernel would show zeros behind the end of a file: it reads
// by a size that is too large.
var errUnsized = errors.New("its size was not known: a program that maps it, or has it sent (sendfile), must ask for the size of the open file first")

// errOther says that a file which is open may be another one by now.
var errOther = fmt.Errorf("%w: nothing proves that it is what was open before mlflowfs was started anew: open it again", cache.ErrChanged)

// span is the bytes from off to end.
type span struct{ off, end int64 }

// read answers whole or with an error: to the kernel a short answer is the
// end of the file, for every reader. fills says that a read is the kernel's own, for its
// page cache: of a map, a sendfile, or a cached file.
func (f *openFile) read(r request, dest []byte, off int64, fills bool) (int, syscall.Errno) {
	p := f.i.a.killable(r, reading)
	defer p.finish()
	s := span{off, off + int64(len(dest))}
	f.i.waitsFor(s)
	defer f.i.hasRead(s)
	rctx := context.Context(p)
	if log := f.i.a.log; log.Enabled(p, slog.LevelDebug) {
		number := f.i.a.numbers.Add(1)
		rctx = cache.WithRequest(p, number)
		log.Debug("read", "request", number, "path", "/"+f.i.path(), "offset", off, "bytes", len(dest))
		defer func() { log.Debug("answered", "request", number, "took", time.Since(p.began)) }()
	}
	n, err := f.h.ReadAt(rctx, dest, off)
	if want := min(int64(len(dest)), f.size-off); err == io.EOF && int64(n) < want {
		err = fmt.Errorf("%w: it ends after %d bytes and was listed with %d", cache.ErrChanged, off+int64(n), f.size)
	}
	if err == io.EOF && f.grows && fills && !f.i.sized.Load() {
		err = errUnsized
	}
	if expect := f.expect.Load(); expect != 0 && (err == nil || err == io.EOF) {
		if expect != f.proof() {
			err = errOther
		} else {
			f.proven()
		}
	}
	if err != nil && err != io.EOF {
		return 0, f.i.fail(reading, "", err)
	}
	f.hasPages()
	return n, 0
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

// released is told that no program has f open any more.
func (f *openFile) released() {
	i := f.i
	i.mu.Lock()
	if !f.passed {
		at := slices.Index(i.cached, f)
		i.cached = slices.Delete(i.cached, at, at+1)
	} else {
		i.unpassed()
	}
	i.mu.Unlock()
	f.done()
	i.done()
}

// unpassed notes that one handle less has the kernel read its backing file. i.mu is held.
func (i *inode) unpassed() {
	if i.passed--; i.passed == 0 {
		i.a.session.unback(i.backing)
		i.backing = 0
	}
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
