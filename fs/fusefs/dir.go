package fusefs

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/mlflowfs/mlflowfs/fs"
)

// openDir is a directory that is being read. It holds no more of it than its
// Listing does, and what may be asked for again: the entries of the last answer, of which
// a program that was interrupted took some, and the one for which that had no room. It
// gives each entry's attributes with the entry (READDIRPLUS), so that no look-up follows a
// listing.
type openDir struct {
	i *inode

	mu    sync.Mutex // guards what follows
	list  fs.Listing // nil until the first entry is wanted
	since uint64     // anews, when it was begun
	pos   uint64     // entries taken from it, "." and ".." among them
	held  []fs.Entry // the last of these
	given uint64     // the number of the last that an answer had
	err   error      // what came in the place of another, and is not told yet
}

func (i *inode) opendir(out *fuse.OpenOut) (*openDir, syscall.Errno) {
	n := i.get()
	if n.Dir == nil {
		return nil, syscall.ENOTDIR
	}
	if settled(n) {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
		i.forgetEntries(n.TTL)
	}
	i.pins.Add(1)
	return &openDir{i: i}, 0
}

// released is told that no program has d open any more.
func (d *openDir) released() { d.i.done() }

// settled tells whether the entries of a directory change no more.
func settled(n *fs.Node) bool {
	s, ok := n.Dir.(fs.Settled)
	return ok && s.Settled()
}

// forgetEntries has the kernel list the directory anew where it has remembered its
// entries for ttl.
func (i *inode) forgetEntries(ttl time.Duration) {
	now := time.Now()
	i.mu.Lock()
	was := i.listed
	i.mu.Unlock()
	if now.Sub(was) < ttl {
		return
	}
	if !was.IsZero() {
		i.a.session.forgetPages(i.number)
	}
	i.mu.Lock()
	i.listed = now
	i.mu.Unlock()
}

// read answers a READDIR, or with plus a READDIRPLUS, from where off entries were given. An
// error is told where no entry comes before it.
func (d *openDir) read(r request, off uint64, out *fuse.DirEntryList, plus bool) syscall.Errno {
	p := d.i.a.killable(r, listing)
	defer p.finish()
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.seek(p, off)
	for n := 0; err == nil; n++ {
		var e fs.Entry
		if e, err = d.at(p, n); err == nil && !d.give(p, off+uint64(n)+1, e, out, plus) {
			return 0
		}
		if n > 0 && err != nil && err != io.EOF {
			d.err = err
			return 0
		}
	}
	if err != io.EOF {
		return d.i.fail(listing, "", err)
	}
	return 0
}

// seek goes to where off entries were given: to one of those that are held, or to one
// behind them; backwards means to list again from the start. d.mu is held.
func (d *openDir) seek(ctx context.Context, off uint64) error {
	if off < d.pos-uint64(len(d.held)) || off == 0 { // rewinddir(3) is for what is there now
		d.pos, d.list, d.held, d.given, d.err = 0, nil, nil, 0, nil
	}
	for d.pos < off {
		if _, err := d.at(ctx, len(d.held)); err != nil {
			return err
		}
		d.held = d.held[:0]
	}
	n := copy(d.held, d.held[uint64(len(d.held))-(d.pos-off):])
	clear(d.held[n:])
	d.held = d.held[:n]
	return nil
}

// at gives number n of the entries that are held, or takes the next from the listing. d.mu
// is held.
func (d *openDir) at(ctx context.Context, n int) (fs.Entry, error) {
	if n < len(d.held) {
		return d.held[n], nil
	}
	if err := d.err; err != nil {
		d.err = nil
		return fs.Entry{}, err
	}
	e, err := d.next(ctx)
	if err == nil {
		d.pos++
		d.held = append(d.held, e)
	}
	return e, err
}

// next takes entry number pos from the listing. "." and ".." have no Node: the kernel knows
// them. d.mu is held.
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

// give puts an entry into an answer, behind which number of them were given; false where
// that has no room. One that is given again is given by its name alone: what it was when it
// was listed may not be so any more.
func (d *openDir) give(ctx context.Context, number uint64, e fs.Entry, out *fuse.DirEntryList, plus bool) bool {
	entry := fuse.DirEntry{Name: e.Name, Off: number, Mode: syscall.S_IFDIR}
	if e.Node != nil {
		entry.Mode = mode(e.Node)
		entry.Ino = d.i.a.names.identify(d.i, e.Name, e.Node).number()
	}
	again := number <= d.given
	if !plus {
		room := out.AddDirEntry(entry)
		if room {
			d.given = max(d.given, number)
		}
		return room
	}
	told := out.AddDirLookupEntry(entry)
	if told == nil {
		return false
	}
	d.given = max(d.given, number)
	if e.Node != nil && !e.Later && !again { // else the kernel looks it up when it is wanted
		if d.i.entry(ctx, d.since, e.Name, e.Node, told) != 0 {
			*told = fuse.EntryOut{} // without a number: it is looked up when it is wanted
		}
	}
	return true
}
