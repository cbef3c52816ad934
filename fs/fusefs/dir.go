package fusefs

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// openDir is a directory that is being read. It holds no more of it than its
// Listing does, and gives each entry's attributes with the entry (READDIRPLUS),
// so that no look-up follows a listing.
type openDir struct {
	i *inode

	mu    sync.Mutex // guards what follows
	list  fs.Listing // nil until the first entry is wanted
	since uint64     // anews, when it was begun
	pos   uint64     // entries given, "." and ".." among them
	last  fs.Entry   // the entry given last
}

var (
	_ gofs.FileReaddirenter = (*openDir)(nil)
	_ gofs.FileLookuper     = (*openDir)(nil)
	_ gofs.FileSeekdirer    = (*openDir)(nil)
)

func (i *inode) OpendirHandle(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	n := i.get()
	if n.Dir == nil {
		return nil, 0, syscall.ENOTDIR
	}
	var flags uint32
	if settled(n) {
		flags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
		i.forgetEntries(n.TTL)
	}
	return &openDir{i: i}, flags, 0
}

// settled tells whether the entries of a directory change no more.
func settled(n *fs.Node) bool {
	s, ok := n.Dir.(fs.Settled)
	return ok && s.Settled()
}

// forgetEntries has the kernel list the directory anew where it has remembered its
// entries for ttl. To leave out FOPEN_KEEP_CACHE would not do: go-fuse adds it to each
// FOPEN_CACHE_DIR.
func (i *inode) forgetEntries(ttl time.Duration) {
	now := time.Now()
	i.mu.Lock()
	was := i.known().listed
	i.mu.Unlock()
	if now.Sub(was) < ttl {
		return
	}
	if !was.IsZero() {
		i.NotifyContent(0, 0)
	}
	i.mu.Lock()
	i.known().listed = now
	i.mu.Unlock()
}

// Readdirent gives the next entry, or nil at the end.
func (d *openDir) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	p := d.i.a.killable(ctx, listing)
	defer p.finish()
	d.mu.Lock()
	defer d.mu.Unlock()
	e, err := d.next(p)
	if err == io.EOF {
		return nil, 0
	}
	if err != nil {
		return nil, d.i.fail(listing, "", err)
	}
	d.pos++
	d.last = e
	out := &fuse.DirEntry{Name: e.Name, Off: d.pos, Mode: syscall.S_IFDIR}
	if e.Node != nil {
		out.Mode = mode(e.Node)
		out.Ino = d.i.identify(e.Name, e.Node).number()
	}
	return out, 0
}

// next gives entry number pos. "." and ".." have no Node: the kernel knows
// them.
func (d *openDir) next(ctx context.Context) (fs.Entry, error) {
	if d.pos < 2 {
		return fs.Entry{Name: "..."[:d.pos+1]}, nil
	}
	if d.list == nil {
		d.since = d.i.a.anews.Load()
		l, err := d.i.get().Dir.List(ctx)
		if err != nil {
			return fs.Entry{}, err
		}
		d.list = l
	}
	return d.list.Next(ctx)
}

// Lookup gives the node of an entry just listed.
func (d *openDir) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	d.mu.Lock()
	last, since := d.last, d.since
	d.mu.Unlock()
	if last.Name != name || last.Node == nil { // the kernel repeats a listing that it was interrupted in
		return d.i.Lookup(ctx, name, out)
	}
	if last.Later { // the kernel then looks it up when it is wanted
		return nil, syscall.EAGAIN
	}
	return d.i.entry(ctx, since, name, last.Node, out), 0
}

// Seekdir goes to where off entries have been given; backwards means to list
// again from the start.
func (d *openDir) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	p := d.i.a.killable(ctx, listing)
	defer p.finish()
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < d.pos {
		d.pos, d.list, d.last = 0, nil, fs.Entry{}
	}
	for d.pos < off {
		e, err := d.next(p)
		if err == io.EOF {
			return 0
		}
		if err != nil {
			return d.i.fail(listing, "", err)
		}
		d.pos++
		d.last = e
	}
	return 0
}
