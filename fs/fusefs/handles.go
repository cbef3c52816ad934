package fusefs

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
)

// handles are what programs have open, by the numbers that the kernel knows them by. Each has
// a record in the session.
type handles struct {
	mu   sync.RWMutex // guards what follows, and the records; no other lock is taken under it
	rows *sessionfile.Handles
	last uint64         // number; they begin with the time, so that none is another daemon's
	open map[uint64]any // *openFile, *openDir, or *keptFile
}

func newHandles(rows *sessionfile.Handles) handles {
	return handles{rows: rows, last: uint64(time.Now().UnixNano()), open: map[uint64]any{}}
}

// add gives what was opened a number, which is that of the request (unique for the mount), so
// that the next daemon finds what one that was killed had opened, and not told; 0 says that
// there is no room for one more.
func (h *handles) add(opened any, request uint64) uint64 {
	rec := sessionfile.Handle{}
	switch o := opened.(type) {
	case *openDir:
		rec = sessionfile.Handle{Inode: o.i.number, Dir: true}
	case *openFile:
		rec = o.record()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	rec.Number = request
	if request == 0 || h.open[request] != nil {
		h.last++
		rec.Number = h.last
	}
	f, file := opened.(*openFile)
	if file { // by now the kernel may have pages of it (hasPages)
		f.number, rec.Identity = rec.Number, f.noted.Load()
	}
	if h.rows.Add(rec) != nil {
		return 0
	}
	h.open[rec.Number] = opened
	return rec.Number
}

// record is what a daemon after this one is to know of f.
func (f *openFile) record() sessionfile.Handle {
	i := f.i
	i.mu.Lock()
	defer i.mu.Unlock()
	rec := sessionfile.Handle{Inode: i.number, Size: f.size, Passed: f.passed, Grows: f.grows, Mtime: i.mtime(i.node).UnixNano()}
	if f.passed {
		rec.Backing = i.backing
		f.noted.Store(f.proof())
	}
	return rec
}

// prove notes what proves the content that f reads, as f.noted has it.
func (h *handles) prove(f *openFile) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rows.SetIdentity(f.number, f.noted.Load())
}

func (h *handles) at(number uint64) any {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.open[number]
}

// take is at, for the last time.
func (h *handles) take(number uint64) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	opened := h.open[number]
	delete(h.open, number)
	h.rows.Remove(number)
	return opened
}

// keptFile is a file that a program opened by a daemon before this one. It is opened here
// when it is read.
type keptFile struct {
	i   *inode
	rec sessionfile.Handle

	mu sync.Mutex // guards f; held while it is opened
	f  *openFile  // nil until it is
}

// keep takes over what is open by the session. No request is answered yet.
func (a *adapter) keep() {
	a.handles.rows.All(func(rec sessionfile.Handle) {
		i := a.names.use(a, rec.Inode) // until it is closed
		switch {
		case i == nil:
		case rec.Dir:
			a.handles.open[rec.Number] = &openDir{i: i}
		default:
			i.keep(rec)
			a.handles.open[rec.Number] = &keptFile{i: i, rec: rec}
		}
	})
}

// keep notes that a program has i open, by a handle of a daemon before this one.
func (i *inode) keep(rec sessionfile.Handle) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known = &rec
	if !rec.Passed {
		i.kept++
		return
	}
	i.passed++
	i.backing, i.backed = rec.Backing, provenBy(rec.Identity)
	i.read = i.backed
}

// file opens k here, where it is not yet.
func (k *keptFile) file(r request) (*openFile, syscall.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.f != nil {
		return k.f, 0
	}
	i := k.i
	if errno := i.resolves(r); errno != 0 {
		return nil, errno
	}
	p := i.a.killable(r, opening)
	defer p.finish()
	n := i.get()
	if n.File == nil {
		return nil, syscall.ESTALE
	}
	h, err := n.File.Open(p)
	if errors.Is(err, fs.ErrOutdated) {
		err = errOther
	}
	if err != nil {
		return nil, i.fail(opening, "", err)
	}
	f := i.openFile(n, h)
	f.number = k.rec.Number
	if errno := k.joins(f); errno != 0 {
		h.Close()
		return nil, errno
	}
	k.f = f
	return f, 0
}

// joins has f be one of those that are open of the inode, unless it is of another content
// than they are, or than the program has read.
func (k *keptFile) joins(f *openFile) syscall.Errno {
	i := k.i
	i.pushing.Lock()
	defer i.pushing.Unlock()
	expect, proof := k.rec.Identity, f.proof()
	if expect == proof && proof != unproven {
		expect = 0
	}
	i.mu.Lock()
	was := i.read
	i.mu.Unlock()
	same := was == "" || f.is(was)
	later := proof == unproven && (same || was == provenBy(expect)) // the first read tells
	if f.size != k.rec.Size || expect == unproven || !(expect == 0 && same || expect != 0 && later) {
		return i.fail(opening, "", errOther)
	}
	f.expect.Store(expect)
	i.mu.Lock()
	defer i.mu.Unlock()
	f.passed = k.rec.Passed
	if !f.passed {
		i.kept--
		i.cached = append(i.cached, f)
	}
	if expect == 0 {
		f.goesOn()
	}
	return 0
}

// proven notes that what f reads is what the program had open.
func (f *openFile) proven() {
	f.i.mu.Lock()
	defer f.i.mu.Unlock()
	f.expect.Store(0)
	f.goesOn()
}

// goesOn has the kernel have f's pages. i.mu is held.
func (f *openFile) goesOn() {
	f.i.read = f.identity
	if !f.passed && !f.grows {
		f.pushes()
	}
}

// released is told that no program has k open any more.
func (k *keptFile) released() {
	k.mu.Lock()
	f := k.f
	k.mu.Unlock()
	if f != nil {
		f.released()
		return
	}
	i := k.i
	i.mu.Lock()
	if k.rec.Passed {
		i.unpassed()
	} else {
		i.kept--
	}
	i.mu.Unlock()
	i.done()
}

// remembered fills the attributes of a file that can't be looked up, as they were when it was
// opened; false where it is not open.
func (i *inode) remembered(out *fuse.AttrOut) bool {
	i.mu.Lock()
	rec := i.known
	open := i.isOpen()
	i.mu.Unlock()
	if rec == nil || !open || rec.Grows { // of which the size is not known
		return false
	}
	i.attr(&fs.Node{File: gone{}, Size: rec.Size, Mtime: time.Unix(0, rec.Mtime)}, &out.Attr)
	return true
}

// gone is a file of which nothing is known but its attributes.
type gone struct{ fs.File }
