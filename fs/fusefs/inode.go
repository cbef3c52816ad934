package fusefs

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/mlflowfs/mlflowfs/fs"
	"github.com/mlflowfs/mlflowfs/fs/fusefs/sessionfile"
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
	anews    atomic.Uint64 // of which there were so many, begun and ended: see [inode.anew]
	root     *inode
	handles  handles
	session  *session
	pusher   *pagePusher
	passing  *passthrough
	file     *sessionfile.File
	names    *names
	links    *linkWatcher
	watchdog *watchdog
}

// inode is a [fs.Node] as the kernel knows it, made of its row in names when it is asked for.
// The Node in it is the one that the last look-up found; until there is one, it is not
// resolved.
type inode struct {
	a      *adapter
	id     ident
	number uint64 // by which the kernel names it
	parent uint64 // the number of its directory
	name   string // in that
	turn   uint32 // how often what has the name was found to have changed before
	dir    bool

	pins     atomic.Int32 // of who uses it: requests, and handles
	missedAt atomic.Int64 // when a name in it was not there last, in nanoseconds since 1970
	sized    atomic.Bool  // of a file that grows: the kernel was told its size

	queued bool // in pagePusher.queue; guarded by its mutex

	pushing sync.Mutex // held while pages are pushed, or become another content's; before mu

	mu      sync.Mutex           // guards what follows; of other locks only those of the cache are taken under it
	node    *fs.Node             // nil until it is resolved
	read    string               // identity of what was opened last, the pages that the kernel has; or what proves it (provenBy)
	stale   bool                 // the content was found to have changed: its name leads to another inode now
	missed  map[string]time.Time // of a directory: names that were not there, and when
	listed  time.Time            // of a directory: when the kernel began to remember the entries
	cached  []*openFile          // open handles that the kernel caches pages for
	passed  int                  // open handles whose backing file it reads itself
	backing int32                // by which it names that file
	backed  string               // identity of what was passed first, or what proves it
	kept    int                  // those of cached of a daemon before this one, which are not open here yet
	known   *sessionfile.Handle  // one of them: what the kernel was told of the file
	reading []span               // what the kernel waits for
}

// done ends a use of i.
func (i *inode) done() { i.pins.Add(-1) }

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

// path is where i is, below the mount.
func (i *inode) path() string { return i.a.names.path(i.number) }

// get is the Node as it was found last; nil until i is resolved.
func (i *inode) get() *fs.Node {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.node
}

// attr fills a stat.
func (i *inode) attr(n *fs.Node, out *fuse.Attr) {
	out.Mode = mode(n)
	out.Ino = i.number
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
	t := i.mtime(n)
	out.SetTimes(&t, &t, &t)
}

// mtime is when n was changed: before the mount, where that is not known.
func (i *inode) mtime(n *fs.Node) time.Time {
	if n.Mtime.IsZero() {
		return i.a.mounted
	}
	return n.Mtime
}

func (i *inode) lookup(r request, name string, out *fuse.EntryOut) syscall.Errno {
	p := i.a.killable(r, lookUp)
	defer p.finish()
	d := i.get().Dir
	if d == nil {
		return syscall.ENOTDIR
	}
	if i.a.links.left(r, i, name, out) {
		return 0
	}
	since := i.a.anews.Load()
	n, err := d.Lookup(p, name)
	if err != nil {
		e := i.fail(lookUp, name, err)
		if e == syscall.ENOENT { // an entry without a number: the kernel may believe that for a while
			i.miss(name)
			out.SetEntryTimeout(negativeTTL)
			return 0
		}
		return e
	}
	return i.entry(p, since, name, n, out)
}

// resolved has i have a Node: where it has none, its name is looked up. What is found then is
// another content, or nothing, as ESTALE tells: the kernel looks the name up itself.
func (i *inode) resolved(ctx context.Context) syscall.Errno {
	if i.get() != nil {
		return 0
	}
	dir := i.a.names.use(i.a, i.parent)
	if dir == nil {
		return syscall.ESTALE
	}
	defer dir.done()
	if errno := dir.resolved(ctx); errno != 0 {
		return errno
	}
	d := dir.get().Dir
	if d == nil || i.isStale() {
		return syscall.ESTALE
	}
	n, err := d.Lookup(ctx, i.name)
	if err != nil {
		if errno := dir.fail(lookUp, i.name, err); errno != syscall.ENOENT {
			return errno
		}
	}
	if err != nil || dir.ident(i.name, n, i.turn) != i.id {
		i.outdated()
		return syscall.ESTALE
	}
	i.mu.Lock()
	if i.node == nil {
		i.node = n
	}
	i.mu.Unlock()
	if n.Moves {
		i.a.links.touch(i, n.TTL)
	}
	if n.Anew {
		dir.anew(ctx, n.Link)
	}
	return 0
}

// resolves is resolved for a request of the kernel.
func (i *inode) resolves(r request) syscall.Errno {
	if i.get() != nil {
		return 0
	}
	p := i.a.killable(r, lookUp)
	defer p.finish()
	return i.resolved(p)
}

func (i *inode) getattr(r request, out *fuse.AttrOut) syscall.Errno {
	n := i.get()
	i.attr(n, &out.Attr)
	if g, ok := n.File.(fs.Growing); ok {
		return i.grown(r, g, &out.Attr)
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
func (i *inode) grown(r request, g fs.Growing, out *fuse.Attr) syscall.Errno {
	p := i.a.killable(r, sizing)
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
		at := "/" + path.Join(i.path(), name)
		i.a.log.Error(op+" failed", "path", at, "errno", e.Error(), "err", err, "mend", mend(e))
	}
	return e
}
