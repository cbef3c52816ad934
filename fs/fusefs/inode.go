package fusefs

import (
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
	names    *names
	links    *linkWatcher
	watchdog *watchdog
}

// inode is a [fs.Node] as the kernel knows it. It lives as long as the kernel
// remembers it; the Node in it is the one that the last look-up found.
type inode struct {
	a      *adapter
	id     ident
	number uint64                // by which the kernel names it
	name   string                // in its parent
	parent atomic.Pointer[inode] // as the kernel was told last; nil of the root

	sized atomic.Bool // of a file that grows: the kernel was told its size

	queued  bool   // in pagePusher.queue; guarded by its mutex
	lookups uint64 // that the kernel has not forgotten; guarded by the mutex of names
	weight  int    // in names; guarded by its mutex

	pushing sync.Mutex // held while pages are pushed, or become another content's; before mu

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	node    *fs.Node
	read    string        // identity of what was opened last: the pages that the kernel has
	stale   bool          // the content was found to have changed: its name leads to another inode now
	entries *entriesKnown // of a directory; nil until there is something to know
	cached  []*openFile   // open handles that the kernel caches pages for
	passed  int           // open handles whose backing file it reads itself
	backing int32         // by which it names that file
	backed  string        // identity of what was passed first
	reading []span        // what the kernel waits for
}

// entriesKnown is what is known of a directory's entries. It is guarded by inode.mu.
type entriesKnown struct {
	children map[string]*inode    // that the kernel was told of, by the names that lead to them now
	turns    map[string]int       // how often a name was found to have changed
	missed   map[string]time.Time // names that were not there, and when
	listed   time.Time            // when the kernel began to remember the entries
}

// known is what is known of the entries. i.mu is held.
func (i *inode) known() *entriesKnown {
	if i.entries == nil {
		i.entries = &entriesKnown{children: map[string]*inode{}, turns: map[string]int{}, missed: map[string]time.Time{}}
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

// isDir tells whether i is a directory, as it is for as long as the kernel knows it.
func (i *inode) isDir() bool { return i.get().Dir != nil }

// path is where i is, below the mount.
func (i *inode) path() string {
	parent := i.parent.Load()
	if parent == nil {
		return ""
	}
	return path.Join(parent.path(), i.name)
}

// child is what the kernel was told last that a name leads to; nil where it has forgotten
// that, or was told of nothing.
func (i *inode) child(name string) *inode {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.entries == nil {
		return nil
	}
	return i.entries.children[name]
}

// stands gives the directory in which i's name leads to it; nil where none does.
func (i *inode) stands() *inode {
	if parent := i.parent.Load(); parent != nil && parent.child(i.name) == i {
		return parent
	}
	return nil
}

// adopt notes that the kernel is told that child's name leads to it. The inode that child's
// directory had before may be forgotten by now.
func (i *inode) adopt(child *inode) {
	child.parent.Store(i)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known().children[child.name] = child
}

// lost is told that the kernel knows a child no more.
func (i *inode) lost(child *inode) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.entries != nil && i.entries.children[child.name] == child {
		delete(i.entries.children, child.name)
	}
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
	t := n.Mtime
	if t.IsZero() {
		t = i.a.mounted
	}
	out.SetTimes(&t, &t, &t)
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
	i.entry(p, since, name, n, out)
	return 0
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
