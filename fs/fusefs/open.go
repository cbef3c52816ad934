package fusefs

import (
	"errors"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// open answers ESTALE where the inode's content is no more what its name leads
// to: the kernel then looks the name up anew, however long it might believe the
// old answer, and opens what it finds.
func (i *inode) open(r request, flags uint32, out *fuse.OpenOut) (*openFile, syscall.Errno) {
	if flags&(syscall.O_WRONLY|syscall.O_RDWR|syscall.O_TRUNC|syscall.O_APPEND) != 0 {
		return nil, syscall.EROFS
	}
	p := i.a.killable(r, opening)
	defer p.finish()
	i.mu.Lock()
	n, stale := i.node, i.stale
	i.mu.Unlock()
	if n.File == nil {
		return nil, syscall.EISDIR
	}
	if stale {
		return nil, syscall.ESTALE
	}
	h, err := n.File.Open(p)
	if errors.Is(err, fs.ErrOutdated) {
		i.outdated()
		return nil, syscall.ESTALE
	}
	if err != nil {
		return nil, i.fail(opening, "", err)
	}
	f := i.openFile(n, h)
	if !i.opened(f, flags&pastPages != 0, out) {
		h.Close()
		i.outdated()
		return nil, syscall.ESTALE
	}
	i.pins.Add(1)
	return f, 0
}

// openFile is an open file of i, which is n.
func (i *inode) openFile(n *fs.Node, h fs.Handle) *openFile {
	f := &openFile{i: i, h: h, size: n.Size, identity: noIdentity, uses: 1}
	if id, is := h.(fs.Identified); is {
		f.identity = id.Identity()
	}
	if _, f.grows = n.File.(fs.Growing); f.grows {
		f.size = 0
	}
	return f
}

// noIdentity is what the kernel has pages of after an open of a handle without
// an identity.
const noIdentity = "\x00"

// opened decides how the kernel is to read a handle that has just been opened;
// false says that the inode is open with another content.
//
// The pages of an old content go before the answer: the kernel drops them for an
// open without FOPEN_KEEP_CACHE only when it has that, and who opens the file
// right behind with it may have read of them by then. Nothing waits for a page
// meanwhile, since no handle is open.
//
// An inode is read by the kernel itself, or through its page cache, from its
// first open to its last close, and never both (fuse_file_io_open in the
// kernel). All of its opens have one backing file, that of the first, so an inode
// that had one of another content gets none.
//
// A program that reads past the page cache (direct, O_DIRECT) would have what is passed
// to it from the disk, though the system may have all of it in memory: it is read through
// the daemon, by a flag that goes before the other (fuse_file_read_iter).
func (i *inode) opened(f *openFile, direct bool, out *fuse.OpenOut) bool {
	backing := i.a.passing.backing(f.h)
	i.pushing.Lock()
	defer i.pushing.Unlock()
	if !i.reads(f) {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.passes(f, backing) {
		out.BackingID, out.OpenFlags = i.backing, fuse.FOPEN_PASSTHROUGH
		if direct {
			out.OpenFlags |= fuse.FOPEN_DIRECT_IO
		}
		return true
	}
	i.cached = append(i.cached, f)
	i.a.opens.cached.Add(1)
	switch {
	case f.grows:
		out.OpenFlags = fuse.FOPEN_DIRECT_IO // what is read goes by no size
	case f.identity != noIdentity:
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		f.pushes()
	}
	return true
}

// pushes has the kernel be given pages of f as their bytes come. i.mu is held.
func (f *openFile) pushes() {
	if ah, is := f.h.(fs.Ahead); is {
		ah.Wake(func() { f.i.a.pusher.push(f.i) })
	}
}

// passes has the kernel read f by itself, from backing or from the file that it reads
// already, where there is one. i.mu is held.
func (i *inode) passes(f *openFile, backing *os.File) bool {
	if i.passed == 0 {
		if backing == nil || len(i.cached) > 0 || (i.backed != "" && !f.is(i.backed)) {
			return false
		}
		id, errno := i.a.session.back(backing)
		if errno != 0 {
			return false
		}
		i.backing, i.backed = id, f.identity
	}
	f.passed = true
	i.passed++
	i.a.opens.passed.Add(1)
	return true
}

// reads has the kernel read f's content from now on, and drop the pages of
// another; false says that one is open. i.pushing is held.
func (i *inode) reads(f *openFile) bool {
	i.mu.Lock()
	was := i.read
	other := was != "" && !f.is(was)
	if other && i.isOpen() {
		i.mu.Unlock()
		return false
	}
	i.read = f.identity
	i.mu.Unlock()
	if other {
		i.a.session.forgetPages(i.number)
		i.a.names.setPages(i, 0)
	}
	return true
}

// isOpen tells whether a program has i open. i.mu is held.
func (i *inode) isOpen() bool { return len(i.cached) > 0 || i.passed > 0 || i.kept > 0 }
