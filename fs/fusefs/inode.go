package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
)

// adapter is what all inodes of a mount share.
type adapter struct {
	log      *slog.Logger
	uid, gid uint32
	mounted  time.Time
	answered func(op string, took time.Duration)
	failed   func(op, errno string)
	opens    opens
	numbers  atomic.Uint64 // of reads, in the log
	made     atomic.Uint64 // inodes
	anews    atomic.Uint64 // of which there were so many, begun and ended: see [inode.anew]
	pusher   *pagePusher
	passing  *passthrough
	names    *names
	links    *linkWatcher
	watchdog *watchdog

	releasing sync.Map // from the channel of a RELEASE that go-fuse is at to what is done after it
}

// inode is a [fs.Node] as the kernel knows it. It lives as long as the kernel
// remembers it; the Node in it is the one that the last look-up found.
type inode struct {
	gofs.Inode
	a  *adapter
	id ident

	sized atomic.Bool // of a file that grows: the kernel was told its size

	queued bool // in pagePusher.queue; guarded by its mutex
	weight int  // in names; guarded by its mutex

	pushing sync.Mutex // held while pages are pushed, or become another content's; before mu

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	node    *fs.Node
	read    string        // identity of what was opened last: the pages that the kernel has
	stale   bool          // the content was found to have changed: its name leads to another inode now
	entries *entriesKnown // of a directory; nil until there is something to know
	cached  []*openFile   // open handles that the kernel caches pages for
	passed  int           // open handles whose backing file it reads itself
	backed  string        // identity of what was passed first
	reading []span        // what the kernel waits for
}

// entriesKnown is what is known of a directory's entries. It is guarded by inode.mu.
type entriesKnown struct {
	turns  map[string]int       // how often a name was found to have changed
	missed map[string]time.Time // names that were not there, and when
	listed time.Time            // when the kernel began to remember the entries
}

// known is what is known of the entries. i.mu is held.
func (i *inode) known() *entriesKnown {
	if i.entries == nil {
		i.entries = &entriesKnown{turns: map[string]int{}, missed: map[string]time.Time{}}
	}
	return i.entries
}

// mode has the owner's write bit, though a mount is read-only and the kernel refuses
// each write with EROFS: who copies a file with its mode, as cp -r and shutil.copytree
// do, gets one that can be changed and removed.
func mode(n *fs.Node) uint32 {
	switch {
	case n.Private:
		return syscall.S_IFDIR | 0o700
	case n.Dir != nil:
		return syscall.S_IFDIR | 0o755
	case n.File != nil:
		return syscall.S_IFREG | 0o644
	}
	return syscall.S_IFLNK | 0o777
}

// get is the Node as it was found last.
func (i *inode) get() *fs.Node {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.node
}

// attr fills a stat.
func (i *inode) attr(n *fs.Node, out *fuse.Attr) {
	out.Mode = mode(n)
	out.Size = uint64(n.Size)
	out.Nlink = 1
	if n.Link != "" {
		out.Size = uint64(len(n.Link))
	}
	if n.Dir != nil {
		out.Nlink = 2
	}
	out.Blksize = 1 << 17
	out.Blocks = (out.Size + 511) / 512
	out.Uid, out.Gid = i.a.uid, i.a.gid
	t := n.Mtime
	if t.IsZero() {
		t = i.a.mounted
	}
	out.SetTimes(&t, &t, &t)
}

var (
	_ gofs.NodeLookuper       = (*inode)(nil)
	_ gofs.NodeGetattrer      = (*inode)(nil)
	_ gofs.NodeReadlinker     = (*inode)(nil)
	_ gofs.NodeOpener         = (*inode)(nil)
	_ gofs.NodeOpendirHandler = (*inode)(nil)
	_ gofs.NodeStatfser       = (*inode)(nil)
	_ gofs.NodeOnForgetter    = (*inode)(nil)
)

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	p := i.a.killable(ctx, lookUp)
	defer p.finish()
	d := i.get().Dir
	if d == nil {
		return nil, syscall.ENOTDIR
	}
	if old := i.a.links.left(ctx, i, name, out); old != nil {
		return &old.Inode, 0
	}
	since := i.a.anews.Load()
	n, err := d.Lookup(p, name)
	if err != nil {
		e := i.fail(lookUp, name, err)
		if e == syscall.ENOENT {
			i.miss(name)
		}
		return nil, e
	}
	return i.entry(p, since, name, n, out), 0
}

// OnForget is called when the kernel knows i no more.
func (i *inode) OnForget() {
	i.a.names.forgotten(i)
	i.a.links.forgotten(i)
}

func (i *inode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n := i.get()
	i.attr(n, &out.Attr)
	if g, ok := n.File.(fs.Growing); ok {
		return i.grown(ctx, g, &out.Attr)
	}
	if settled(n) { // whoever has it open may be about to list it again
		i.forgetEntries(n.TTL)
	}
	out.SetTimeout(n.TTL)
	return 0
}

// approximate is what a size is a multiple of that is not the right one, in bytes: the
// largest page that Linux has.
const approximate = 64 << 10

// grown is the size of a file that grows. While a program has it open, whoever asks
// waits until it is known: tail seeks by it, tar and rsync write it down. The kernel
// does not say which handle an fstat is of, nor tells it from a stat, which it may send
// before an open, too: where the file can't be made it is no error, since the next open
// has it made anew. The size is too large then, and reads fail; and it is of whole
// pages, since wc believes any other without a read.
func (i *inode) grown(ctx context.Context, g fs.Growing, out *fuse.Attr) syscall.Errno {
	p := i.a.killable(ctx, sizing)
	defer p.finish()
	i.mu.Lock()
	open := i.isOpen()
	i.mu.Unlock()
	size, known := g.Size()
	for at, err := int64(0), error(nil); open && !known; {
		i.a.watchdog.begins(p) // it waits for one page, and then for another
		at, known, err = g.Grow(p, at)
		if errors.Is(err, fs.ErrOutdated) {
			size = (max(size, at)/approximate + 1) * approximate
			break
		}
		if err != nil {
			return i.fail(sizing, "", err)
		}
		if known {
			size = at
		}
	}
	out.Size, out.Blocks = uint64(size), 0
	if known {
		i.sized.Store(true)
		out.Blocks = (out.Size + 511) / 512
	}
	return 0
}

func (i *inode) Readlink(context.Context) ([]byte, syscall.Errno) {
	return []byte(i.get().Link), 0
}

func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, fs.MaxName
	return 0
}

// Open answers ESTALE where the inode's content is no more what its name leads
// to: the kernel then looks the name up anew, however long it might believe the
// old answer, and opens what it finds.
func (i *inode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if flags&(syscall.O_WRONLY|syscall.O_RDWR|syscall.O_TRUNC|syscall.O_APPEND) != 0 {
		return nil, 0, syscall.EROFS
	}
	p := i.a.killable(ctx, opening)
	defer p.finish()
	i.mu.Lock()
	n, stale := i.node, i.stale
	i.mu.Unlock()
	if n.File == nil {
		return nil, 0, syscall.EISDIR
	}
	if stale {
		return nil, 0, syscall.ESTALE
	}
	h, err := n.File.Open(p)
	if errors.Is(err, fs.ErrOutdated) {
		i.outdated()
		return nil, 0, syscall.ESTALE
	}
	if err != nil {
		return nil, 0, i.fail(opening, "", err)
	}
	size := n.Size
	_, grows := n.File.(fs.Growing)
	if grows {
		size = 0
	}
	file, flags, ok := i.opened(h, size, grows, flags&pastPages != 0)
	if !ok {
		h.Close()
		i.outdated()
		return nil, 0, syscall.ESTALE
	}
	return file, flags, 0
}

// noIdentity is what the kernel has pages of after an open of a handle without
// an identity.
const noIdentity = "\x00"

// opened decides how the kernel is to read a handle that has just been opened;
// ok is false where the inode is open with another content.
//
// The pages of an old content go before the answer: the kernel drops them for an
// open without FOPEN_KEEP_CACHE only when it has that, and who opens the file
// right behind with it may have read of them by then. Nothing waits for a page
// meanwhile, since no handle is open.
//
// An inode is read by the kernel itself, or through its page cache, from its
// first open to its last close, and never both (fuse_file_io_open in the
// kernel). go-fuse gives all opens of an inode the backing file of the first,
// so an inode that had one of another content gets none.
//
// A program that reads past the page cache (direct, O_DIRECT) would have what is passed
// to it from the disk, though the system may have all of it in memory: it is read through
// the daemon, by a flag that goes before the other (fuse_file_read_iter).
func (i *inode) opened(h fs.Handle, size int64, grows, direct bool) (_ gofs.FileHandle, flags uint32, ok bool) {
	f := &openFile{i: i, h: h, size: size, grows: grows, identity: noIdentity, uses: 1}
	if id, is := h.(fs.Identified); is {
		f.identity = id.Identity()
	}
	backing := i.a.passing.backing(h)
	i.pushing.Lock()
	defer i.pushing.Unlock()
	if !i.reads(f.identity) {
		return nil, 0, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.passed > 0 || (backing != nil && (i.backed == "" || i.backed == f.identity) && len(i.cached) == 0) {
		i.passed++
		i.a.opens.passed.Add(1)
		i.backed = f.identity
		if direct {
			flags = fuse.FOPEN_DIRECT_IO
		}
		return passedFile{f, backing}, flags, true
	}
	i.cached = append(i.cached, f)
	i.a.opens.cached.Add(1)
	if grows {
		return f, fuse.FOPEN_DIRECT_IO, true // what is read goes by no size
	}
	if f.identity == noIdentity {
		return f, 0, true
	}
	if ah, is := h.(fs.Ahead); is {
		ah.Wake(func() { i.a.pusher.push(i) })
	}
	return f, fuse.FOPEN_KEEP_CACHE, true
}

// reads has the kernel read that content from now on, and drop the pages of
// another; false says that one is open. i.pushing is held.
func (i *inode) reads(identity string) bool {
	i.mu.Lock()
	was := i.read
	if was != identity && i.isOpen() {
		i.mu.Unlock()
		return false
	}
	i.read = identity
	i.mu.Unlock()
	if was != "" && was != identity {
		i.NotifyContent(0, 0)
	}
	return true
}

// isOpen tells whether a program has i open. i.mu is held.
func (i *inode) isOpen() bool { return len(i.cached) > 0 || i.passed > 0 }

// Operations, as the log and the metrics name them.
const (
	lookUp  = "look-up"
	opening = "open"
	sizing  = "size"
	reading = "read"
	listing = "listing"
)

// fail gives the errno of err, and the log its words. A name that is not
// there, or a request that was interrupted, is no event.
func (i *inode) fail(op, name string, err error) syscall.Errno {
	e := errno(err)
	if e == syscall.ESTALE {
		i.outdated()
	}
	if e != syscall.EINTR && (e != syscall.ENOENT || op != lookUp) {
		i.a.failed(op, unix.ErrnoName(e))
		path := "/" + i.Path(nil)
		if name != "" {
			path += "/" + name
		}
		i.a.log.Error(op+" failed", "path", path, "errno", e.Error(), "err", err, "mend", mend(e))
	}
	return e
}
